import CLinux
import Glibc

/// A virtio entropy device (virtio 1.2, 5.4). Its bytes come from getrandom(2).
final class RNGDevice: QueueDevice {
    /// The largest number of bytes for one request. A shorter reply than asked for is allowed.
    static let maximumRequest = 64 << 10
    /// Requests served before other queues get their turn.
    private static let budget = 8

    let queues = [Virtqueue()]

    func process(queue index: Int, interrupt: () -> Void) throws(QueueError) -> Bool {
        let queue = queues[index]
        return try queue.serve(budget: Self.budget, interrupt: interrupt) { Self.fill(queue.writable) }
    }

    private static func fill(_ buffers: UnsafeBufferPointer<iovec>) -> UInt32 {
        var left = maximumRequest
        for buffer in buffers {
            guard var target = buffer.iov_base else { continue }
            var count = min(left, buffer.iov_len)
            left -= count
            while count > 0 {
                let got = getrandom(target, count, 0)
                if got < 0, errno == EINTR { continue }
                guard got > 0 else { return UInt32(maximumRequest - left - count) }
                target += got
                count -= got
            }
        }
        return UInt32(maximumRequest - left)
    }
}
