/// Where a collector of OpenTelemetry takes traces by HTTP.
package struct CollectorAddress: Sendable, Equatable {
    package var host: String
    package var port: Int
    /// Of traces.
    package var path: String

    /// The port that the protocol has been given (https://opentelemetry.io/docs/specs/otlp/#otlphttp-default-port).
    private static let standardPort = 4318

    /// - Parameter endpoint: `http://HOST[:PORT][/PATH]`, the base of the addresses of all signals. There is no TLS: a collector that wants
    ///   it is reached by one on the host.
    /// - Returns: nil for anything else.
    package init?(_ endpoint: String) {
        let scheme = "http://"
        guard endpoint.hasPrefix(scheme) else { return nil }
        let rest = endpoint.dropFirst(scheme.count)
        guard rest.utf8.allSatisfy({ (0x21..<0x7f).contains($0) && $0 != UInt8(ascii: "@") }) else { return nil }
        let authority = rest.prefix { $0 != "/" }
        var base = rest.dropFirst(authority.count)
        guard !base.contains("?"), !base.contains("#") else { return nil }
        while base.last == "/" { base.removeLast() }
        path = base + "/v1/traces"
        var name = authority
        port = Self.standardPort
        // The colons of an IPv6 address are in brackets.
        if let colon = authority.lastIndex(of: ":"), !authority[colon...].contains("]") {
            guard let number = Int(authority[authority.index(after: colon)...]), (1...65535).contains(number) else {
                return nil
            }
            port = number
            name = authority[..<colon]
        }
        if name.hasPrefix("["), name.hasSuffix("]") { name = name.dropFirst().dropLast() }
        guard !name.isEmpty, !name.contains("["), !name.contains("]") else { return nil }
        host = String(name)
    }
}
