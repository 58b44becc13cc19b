import CLinux
import Glibc

/// A range of memory mapped from a file. It is unmapped when the value is released.
public struct Mapping: ~Copyable, @unchecked Sendable {
    public let base: UnsafeMutableRawPointer
    /// Bytes.
    public let count: Int

    /// Maps `count` bytes of `file` from `offset` (a multiple of the page size), shared, for reading and writing.
    public init(
        file: Int32, offset: Int64 = 0, count: Int, protection: Int32 = PROT_READ | PROT_WRITE,
        flags: Int32 = MAP_SHARED | MAP_NORESERVE
    ) throws(SystemError) {
        guard count > 0, let base = mmap(nil, count, protection, flags, file, Int(offset)), base != MAP_FAILED else {
            if count <= 0 { throw SystemError("mmap", "\(count) bytes", errno: .invalidArgument) }
            throw SystemError.last("mmap", "\(count) bytes")
        }
        self.base = base
        self.count = count
    }

    deinit { munmap(base, count) }
}
