import CLinux
import Glibc

/// The address of a Unix socket in the file system (unix(7)).
public struct UnixAddress: Sendable {
    private let address: sockaddr_un

    /// - Throws: `SystemError` with ENAMETOOLONG when the path is longer than 107 bytes, the kernel's limit.
    public init(_ path: String) throws(SystemError) {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        let room = MemoryLayout.size(ofValue: address.sun_path) - 1
        guard bytes.count <= room else { throw SystemError("socket address", path, errno: .fileNameTooLong) }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        self.address = address
    }

    /// Calls `body` with the address, for calls such as bind(2).
    public func with<R>(_ body: (UnsafePointer<sockaddr>, socklen_t) throws(SystemError) -> R) throws(SystemError) -> R
    {
        var copy = address
        let result: Result<R, SystemError> = withUnsafePointer(to: &copy) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                do throws(SystemError) {
                    return .success(try body(address, socklen_t(MemoryLayout<sockaddr_un>.size)))
                } catch { return .failure(error) }
            }
        }
        return try result.get()
    }

    /// Creates a socket that listens at `path`. Only its owner may connect (mode 0600).
    public static func listen(_ path: String, type: __socket_type = SOCK_STREAM) throws(SystemError) -> OwnedDescriptor
    {
        let socket = OwnedDescriptor(
            owning: try check("socket", path, Glibc.socket(AF_UNIX, Int32(type.rawValue | SOCK_CLOEXEC.rawValue), 0)))
        let raw = socket.raw
        // Before it has a path: its file is made with this mode, whatever the process's mask.
        try check("fchmod", path, fchmod(raw, 0o600))
        try UnixAddress(path).with { address, length throws(SystemError) in
            _ = try check("bind", path, bind(raw, address, length))
        }
        try check("listen", path, Glibc.listen(raw, 64))
        return socket
    }

    /// Creates a socket that is connected to the listener at `path`.
    public static func connect(_ path: String, type: __socket_type = SOCK_STREAM) throws(SystemError) -> OwnedDescriptor
    {
        let socket = OwnedDescriptor(
            owning: try check("socket", path, Glibc.socket(AF_UNIX, Int32(type.rawValue | SOCK_CLOEXEC.rawValue), 0)))
        let raw = socket.raw
        try UnixAddress(path).with { address, length throws(SystemError) in
            _ = try retrying("connect", path) { Glibc.connect(raw, address, length) }
        }
        return socket
    }
}
