import Glibc

/// A virtio file system device (virtio 1.2, 5.11): the rings of a FUSE server.
///
/// Queue 0 carries requests of high priority, the others ordinary ones. Each queue belongs to one thread.
public final class FileDevice: ThreadedDevice, @unchecked Sendable {
    /// Serves one FUSE request: its bytes, and where the answer goes. Answers the bytes written.
    public typealias Server = @Sendable (UnsafeBufferPointer<iovec>, UnsafeBufferPointer<iovec>) -> UInt32

    /// Bytes of the tag in the configuration space.
    public static let maximumTag = 36
    /// The queue of FORGET and INTERRUPT.
    private static let highPriority = 0
    /// Requests served from one queue before others get their turn.
    private static let budget = 64

    public let queues: [Virtqueue]
    /// The configuration space: the tag and the number of request queues (virtio 1.2, 5.11.4).
    public let configuration: [UInt8]
    private let answer: Server

    /// - Parameters:
    ///   - tag: what the guest mounts, 36 bytes of UTF-8 at most; the rest is cut off.
    ///   - requestQueues: at least 1.
    public init(tag: String, requestQueues: Int = 1, serve: @escaping Server) {
        configuration = Self.configuration(tag: tag, requestQueues: requestQueues)
        queues = (0...max(1, requestQueues)).map { _ in Virtqueue() }
        answer = serve
    }

    /// The configuration space of such a device, for a transport to a device that does not give its own.
    public static func configuration(tag: String, requestQueues: Int = 1) -> [UInt8] {
        let count = max(1, requestQueues)
        let tag = Array(tag.utf8.prefix(maximumTag))
        return tag + [UInt8](repeating: 0, count: maximumTag - tag.count)
            + (0..<4).map { UInt8(truncatingIfNeeded: count >> (8 * $0)) }
    }

    func serve(queue index: Int, interrupt: () -> Void) throws(QueueError) -> ServiceProgress {
        let queue = queues[index]
        return try queue.serveWithoutKick(budget: Self.budget, interrupt: interrupt) {
            answer(queue.readable, queue.writable)
        }
    }

    /// FORGET: a guest that removes files or drops its caches sends one for each, beside requests that it waits for.
    func coalescesKicks(queue: Int) -> Bool { queue == Self.highPriority }
}
