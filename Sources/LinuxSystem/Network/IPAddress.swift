import Glibc

/// An IPv4 or IPv6 address.
public struct IPAddress: Hashable, Sendable, CustomStringConvertible {
    /// 4 or 16 bytes in network byte order.
    public let bytes: [UInt8]

    /// 127.0.0.1.
    public static let loopback = IPAddress(v4: (127, 0, 0, 1))

    /// 0.0.0.0: to listen on all addresses.
    public static let anyIPv4 = IPAddress(v4: (0, 0, 0, 0))

    private init(v4: (UInt8, UInt8, UInt8, UInt8)) { bytes = [v4.0, v4.1, v4.2, v4.3] }

    /// Returns nil unless there are 4 or 16 bytes.
    public init?(_ bytes: some Collection<UInt8>) {
        guard bytes.count == 4 || bytes.count == 16 else { return nil }
        self.bytes = Array(bytes)
    }

    /// Parses an address such as `10.0.0.1` or `fe80::1`.
    public init?(_ text: String) {
        var bytes = [UInt8](repeating: 0, count: 16)
        if inet_pton(AF_INET, text, &bytes) == 1 {
            self.bytes = Array(bytes.prefix(4))
        } else if inet_pton(AF_INET6, text, &bytes) == 1 {
            self.bytes = bytes
        } else {
            return nil
        }
    }

    /// AF_INET or AF_INET6.
    public var family: UInt8 { UInt8(bytes.count == 4 ? AF_INET : AF_INET6) }

    /// fe80::/10 (RFC 4291, 2.5.6). The kernel adds such an address to each interface.
    public var isLinkLocalIPv6: Bool { bytes.count == 16 && bytes[0] == 0xfe && bytes[1] & 0xc0 == 0x80 }

    public var description: String {
        var text = [CChar](repeating: 0, count: Int(INET6_ADDRSTRLEN))
        guard inet_ntop(Int32(family), bytes, &text, socklen_t(text.count)) != nil else { return "\(bytes)" }
        return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}

/// A network prefix: an address and the number of its leading bits that count.
public struct IPPrefix: Hashable, Sendable, CustomStringConvertible {
    public var address: IPAddress
    public var length: UInt8

    public init(_ address: IPAddress, length: UInt8) {
        self.address = address
        self.length = length
    }

    /// Parses a prefix such as `10.0.0.0/24`.
    public init?(_ text: String) {
        let parts = text.split(separator: "/")
        guard parts.count == 2, let address = IPAddress(String(parts[0])), let length = UInt8(parts[1]),
            Int(length) <= 8 * address.bytes.count
        else { return nil }
        self.init(address, length: length)
    }

    public var description: String { "\(address)/\(length)" }
}

/// An Ethernet address as text: `02:00:00:00:00:01`.
public func hardwareAddressText(_ bytes: [UInt8]) -> String {
    bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined(separator: ":")
}
