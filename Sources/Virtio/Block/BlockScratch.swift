import Glibc

/// The memory that one thread needs to move data between a disk and a guest.
final class BlockScratch {
    /// Bytes of `bounce`.
    static let bounceSize = 64 << 10

    /// Vectors of a part of a request.
    let parts = UnsafeMutablePointer<iovec>.allocate(capacity: Virtqueue.maximumChain)
    /// The data of a request that direct I/O can't take as it lies in the guest.
    let bounce = UnsafeMutableRawPointer.allocate(byteCount: bounceSize, alignment: 4096)

    deinit {
        parts.deallocate()
        bounce.deallocate()
    }
}
