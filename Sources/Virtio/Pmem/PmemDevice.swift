import Glibc

/// A virtio persistent memory device (virtio 1.2, 5.19) of a file that the guest can only read: what it asks to flush is on the
/// host's disk already.
final class PmemDevice: QueueDevice {
    /// The only request there is (5.19.6).
    private static let flush: UInt32 = 0
    private static let done: UInt32 = 0
    private static let failed: UInt32 = 1
    /// Requests served before other queues get their turn.
    private static let budget = 8

    let queues = [Virtqueue()]

    func process(queue index: Int, interrupt: () -> Void) throws(QueueError) -> Bool {
        let queue = queues[index]
        return try queue.serve(budget: Self.budget, interrupt: interrupt) { Self.reply(queue) }
    }

    /// Answers the request in the current chain: a type, and a result to be written, 4 bytes each. A chain without room for the
    /// result gets none.
    private static func reply(_ queue: Virtqueue) -> UInt32 {
        var type: UInt32 = 0
        let count = Vectors.copyOut(queue.readable, to: &type, count: 4)
        var result = (count == 4 && UInt32(littleEndian: type) == flush ? done : failed).littleEndian
        guard queue.writableBytes >= 4 else { return 0 }
        return UInt32(Vectors.copyIn(&result, count: 4, to: queue.writable))
    }
}
