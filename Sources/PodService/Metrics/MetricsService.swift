import Glibc
import LinuxSystem
import Sandbox

/// Where a server of metrics listens.
public enum ListenAddress: Sendable, Equatable {
    /// An address or a name of this host.
    case tcp(host: String, port: Int)
    case unix(path: String)

    /// - Parameter text: `HOST:PORT`, `[IPv6]:PORT` or `unix:PATH`; nil for anything else.
    public init?(_ text: String) {
        if text.hasPrefix("unix:") {
            let path = String(text.dropFirst(5))
            if path.isEmpty { return nil }
            self = .unix(path: path)
            return
        }
        guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...])
        else { return nil }
        var host = text[..<colon]
        let isBracketed = host.hasPrefix("[") && host.hasSuffix("]")
        if isBracketed { host = host.dropFirst().dropLast() }
        if host.isEmpty || !isBracketed && host.contains(":") { return nil }
        self = .tcp(host: String(host), port: Int(port))
    }
}

/// Serves the metrics of this host.
public struct MetricsService: Sendable {
    private let metrics: HostMetrics

    public init(_ metrics: HostMetrics) { self.metrics = metrics }

    /// Serves until SIGINT or SIGTERM.
    ///
    /// - Parameter began: gets the address, when clients can connect.
    public func run(at address: ListenAddress, began: (String) -> Void) async throws {
        let signals = try SignalQueue([SIGINT, SIGTERM])
        let metrics = metrics
        let server = MetricsServer { await metrics.text($0) }
        do {
            switch address {
            case .tcp(let host, let port): began(try await server.serve(host: host, port: port))
            case .unix(let path):
                Self.removeUnused(path)
                try await server.serve(unixPath: path)
                began("unix:\(path)")
            }
        } catch { throw SandboxError.failed("--listen: \(error)") }
        for await _ in signals.stream { break }
        await server.stop()
        if case .unix(let path) = address { unlink(path) }
    }

    /// Removes a socket at which nobody listens: of a server that was killed.
    private static func removeUnused(_ path: String) {
        do throws(SystemError) { _ = try UnixAddress.connect(path) } catch {
            if error.errno == .connectionRefused { unlink(path) }
        }
    }
}
