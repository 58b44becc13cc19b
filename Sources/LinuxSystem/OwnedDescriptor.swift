import CLinux
import Glibc

/// An open file descriptor, which is closed when the value is released.
public struct OwnedDescriptor: ~Copyable, Sendable {
    /// The descriptor's number, valid as long as this value exists.
    public let raw: Int32

    /// Takes ownership of an open descriptor.
    public init(owning raw: Int32) { self.raw = raw }

    deinit { close(raw) }

    /// Releases ownership. The caller must close the descriptor.
    public consuming func release() -> Int32 {
        let number = raw
        discard self
        return number
    }

    /// Another descriptor for the same open file, close-on-exec.
    public func duplicate() throws(SystemError) -> OwnedDescriptor {
        OwnedDescriptor(owning: try check("dup", "\(raw)", martlet_fcntl_int(raw, F_DUPFD_CLOEXEC, 0)))
    }

    /// Opens `path` (relative to `directory`, the working directory by default), close-on-exec.
    public static func open(
        _ path: String, _ flags: Int32, mode: mode_t = 0, at directory: Int32 = AT_FDCWD
    ) throws(SystemError) -> OwnedDescriptor {
        let raw = try retrying("open", path) {
            martlet_openat2(
                directory, path, UInt64(UInt32(bitPattern: flags | O_CLOEXEC)), flags & O_CREAT != 0 ? UInt64(mode) : 0,
                0)
        }
        return OwnedDescriptor(owning: raw)
    }

    /// A memory file of `size` bytes, zeroed, close-on-exec. Nobody can change the size: who maps the file can rely on it. One of
    /// 0 bytes grows until its owner seals it.
    public static func memory(_ name: String, size: Int64) throws(SystemError) -> OwnedDescriptor {
        let memory = OwnedDescriptor(
            owning: try check(
                "memfd_create", name, martlet_memfd_create(name, UInt32(MFD_CLOEXEC | MFD_ALLOW_SEALING))))
        if size == 0 { return memory }
        // By writing its last byte: ftruncate(2), which also shrinks files, is not allowed in jails.
        try check("pwrite", name, pwrite(memory.raw, [0], 1, Int(size) - 1))
        try memory.seal(F_SEAL_SHRINK | F_SEAL_GROW)
        return memory
    }

    /// Seals a memory file for good (fcntl(2), F_ADD_SEALS): these seals, and that no other is added.
    public func seal(_ seals: Int32) throws(SystemError) {
        try check("fcntl F_ADD_SEALS", "\(raw)", martlet_fcntl_int(raw, F_ADD_SEALS, Int(seals | F_SEAL_SEAL)))
    }

    /// Creates a memory file as `memory` does, but in huge pages if the kernel has them, whatever its setting for memory files.
    /// Needs CAP_SYS_ADMIN. Such a file can't be sealed.
    ///
    /// Source: Documentation/filesystems/tmpfs.rst, "huge"; fsopen(2).
    public static func hugeMemory(_ name: String, size: Int64) throws(SystemError) -> OwnedDescriptor {
        let raw = martlet_huge_file(name, "\(size)")
        if raw < 0 {
            // The kernel has no huge pages.
            if Glibc.errno == EINVAL { return try memory(name, size: size) }
            throw SystemError.last("make memory file", name)
        }
        let memory = OwnedDescriptor(owning: raw)
        try check("ftruncate", name, ftruncate(memory.raw, Int(size)))
        return memory
    }

    /// Sets or clears O_NONBLOCK on the open file, which affects everyone who shares it.
    public func setNonBlocking(_ on: Bool) throws(SystemError) {
        let flags = try check("fcntl F_GETFL", "\(raw)", martlet_fcntl_int(raw, F_GETFL, 0))
        try check(
            "fcntl F_SETFL", "\(raw)",
            martlet_fcntl_int(raw, F_SETFL, Int(on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK)))
    }
}

/// A descriptor with several owners, which is closed when the last one is released. Needed for collections, which can't hold
/// `~Copyable` values.
public final class SharedDescriptor: Sendable {
    private let descriptor: OwnedDescriptor
    public var raw: Int32 { descriptor.raw }
    public init(_ descriptor: consuming OwnedDescriptor) { self.descriptor = descriptor }

    /// Another descriptor for the same open file, close-on-exec.
    public func duplicate() throws(SystemError) -> OwnedDescriptor { try descriptor.duplicate() }

    /// Sends a message; see `OwnedDescriptor.send`.
    public func send(_ bytes: UnsafeRawBufferPointer, descriptors: [Int32] = []) throws(SystemError) {
        try descriptor.send(bytes, descriptors: descriptors)
    }

    /// Receives a message; see `OwnedDescriptor.receive`.
    public func receive(
        into bytes: UnsafeMutableRawBufferPointer, maximumDescriptors: Int = 16
    ) throws(SystemError) -> (count: Int, descriptors: [SharedDescriptor]) {
        try descriptor.receive(into: bytes, maximumDescriptors: maximumDescriptors)
    }

    /// Sets or clears O_NONBLOCK on the open file, which affects everyone who shares it.
    public func setNonBlocking(_ on: Bool) throws(SystemError) { try descriptor.setNonBlocking(on) }

    /// fstat(2).
    public func information() throws(SystemError) -> stat {
        var information = stat()
        try check("fstat", procPath, fstat(raw, &information))
        return information
    }

    /// A path that names the open file itself, for calls that take paths only. Needs /proc.
    public var procPath: String { "/proc/self/fd/\(raw)" }

    /// A connected pair of Unix sockets of `type` (`SOCK_STREAM`, `SOCK_SEQPACKET`), close-on-exec.
    public static func socketPair(_ type: __socket_type) throws(SystemError) -> (SharedDescriptor, SharedDescriptor) {
        var pair: [Int32] = [-1, -1]
        try check("socketpair", "", socketpair(AF_UNIX, Int32(type.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0, &pair))
        return (SharedDescriptor(OwnedDescriptor(owning: pair[0])), SharedDescriptor(OwnedDescriptor(owning: pair[1])))
    }

    /// A pipe: (read end, write end), close-on-exec.
    public static func pipe() throws(SystemError) -> (read: SharedDescriptor, write: SharedDescriptor) {
        var pair: [Int32] = [-1, -1]
        try check("pipe", "", pipe2(&pair, O_CLOEXEC))
        return (SharedDescriptor(OwnedDescriptor(owning: pair[0])), SharedDescriptor(OwnedDescriptor(owning: pair[1])))
    }
}
