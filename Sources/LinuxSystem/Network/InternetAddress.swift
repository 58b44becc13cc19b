import CLinux
import Glibc

/// The address of a TCP or UDP socket (ip(7), ipv6(7)).
public struct InternetAddress: Hashable, Sendable, CustomStringConvertible {
    public let address: IPAddress
    public let port: UInt16

    public init(_ address: IPAddress, port: UInt16) {
        self.address = address
        self.port = port
    }

    public var description: String { address.bytes.count == 4 ? "\(address):\(port)" : "[\(address)]:\(port)" }

    /// A socket of the address's family, close-on-exec.
    ///
    /// - Parameter type: `SOCK_STREAM` or `SOCK_DGRAM`.
    public func socket(_ type: __socket_type) throws(SystemError) -> OwnedDescriptor {
        OwnedDescriptor(
            owning: try check(
                "socket", description,
                Glibc.socket(Int32(address.family), Int32(type.rawValue | SOCK_CLOEXEC.rawValue), 0)))
    }

    /// A socket that is bound to the address. A TCP socket listens.
    public func bound(_ type: __socket_type) throws(SystemError) -> OwnedDescriptor {
        let socket = try socket(type)
        if type == SOCK_STREAM {
            var one: Int32 = 1
            setsockopt(socket.raw, SOL_SOCKET, SO_REUSEADDR, &one, socklen_t(MemoryLayout<Int32>.size))
        }
        try check("bind", description, withAddress { Glibc.bind(socket.raw, $0, $1) })
        if type == SOCK_STREAM { try check("listen", description, Glibc.listen(socket.raw, 128)) }
        return socket
    }

    /// A socket that is connected to the address.
    ///
    /// - Parameter limit: how long the peer may take; nil: as long as the kernel allows.
    public func connected(_ type: __socket_type, within limit: Duration? = nil) throws(SystemError) -> OwnedDescriptor {
        let socket = try socket(type)
        if let limit { setSendTimeout(socket.raw, limit) }
        try retrying("connect", description) { withAddress { Glibc.connect(socket.raw, $0, $1) } }
        return socket
    }

    private func withAddress(_ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32) -> Int32 {
        if address.bytes.count == 4 {
            var v4 = sockaddr_in()
            v4.sin_family = sa_family_t(AF_INET)
            v4.sin_port = port.bigEndian
            withUnsafeMutableBytes(of: &v4.sin_addr) { $0.copyBytes(from: address.bytes) }
            return withGeneric(&v4, body)
        }
        var v6 = sockaddr_in6()
        v6.sin6_family = sa_family_t(AF_INET6)
        v6.sin6_port = port.bigEndian
        withUnsafeMutableBytes(of: &v6.sin6_addr) { $0.copyBytes(from: address.bytes) }
        return withGeneric(&v6, body)
    }

    private func withGeneric<Address>(
        _ address: inout Address, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32
    ) -> Int32 {
        withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<Address>.size)) }
        }
    }
}

/// Limits how long a socket's connect(2) and its writes wait (SO_SNDTIMEO, socket(7)).
///
/// - Returns: setsockopt(2)'s result.
@discardableResult
public func setSendTimeout(_ socket: Int32, _ limit: Duration) -> Int32 {
    setTimeout(socket, SO_SNDTIMEO, limit)
}

/// Limits how long a socket's reads wait (SO_RCVTIMEO, socket(7)).
///
/// - Parameter limit: zero: without a limit.
/// - Returns: setsockopt(2)'s result.
@discardableResult
public func setReceiveTimeout(_ socket: Int32, _ limit: Duration) -> Int32 {
    setTimeout(socket, SO_RCVTIMEO, limit)
}

private func setTimeout(_ socket: Int32, _ option: Int32, _ limit: Duration) -> Int32 {
    let (seconds, attoseconds) = limit.components
    var value = timeval(tv_sec: Int(seconds), tv_usec: Int(attoseconds / 1_000_000_000_000))
    return setsockopt(socket, SOL_SOCKET, option, &value, socklen_t(MemoryLayout<timeval>.size))
}
