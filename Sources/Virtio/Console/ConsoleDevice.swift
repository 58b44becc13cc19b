import Glibc
import LinuxSystem

/// A virtio console with one port (virtio 1.2, 5.3): the guest's hvc0.
final class ConsoleDevice: QueueDevice {
    static let receiveQueue = 0
    static let transmitQueue = 1
    /// Buffers served before others get their turn.
    private static let budget = 32

    let queues = [Virtqueue(), Virtqueue()]
    let output: ConsoleOutput
    let input: ConsoleInput?

    init(output: ConsoleOutput, input: ConsoleInput?) {
        self.output = output
        self.input = input
    }

    func process(queue: Int, interrupt: () -> Void) throws(QueueError) -> Bool {
        queue == Self.receiveQueue ? try receive(interrupt) : try transmit(interrupt)
    }

    /// The guest's processor spins until its words are taken: so they are, whoever reads them.
    private func transmit(_ interrupt: () -> Void) throws(QueueError) -> Bool {
        let queue = queues[Self.transmitQueue]
        defer { output.flush() }
        return try queue.serve(budget: Self.budget, interrupt: interrupt) {
            output.write(queue.readable, count: Int(queue.readableBytes))
            return 0
        }
    }

    /// Input goes straight to the guest's buffers. It is waited for only while there are any.
    private func receive(_ interrupt: () -> Void) throws(QueueError) -> Bool {
        guard let input, !input.isEnded else { return false }
        let queue = queues[Self.receiveQueue]
        input.watch(false)
        guard queue.isRunning else { return false }
        var left = Self.budget
        queue.disarmKick()
        repeat {
            while left > 0, try queue.next() {
                left -= 1
                // A buffer that can't be written to gets nothing, and is not the input's end.
                let count = queue.writable.isEmpty ? 0 : input.read(queue.writable)
                guard let count else {
                    queue.putBack()
                    input.watch(true)
                    return false
                }
                queue.complete(written: UInt32(count))
                if queue.needsInterrupt() { interrupt() }
            }
            if left == 0 { return true }
        } while queue.armKick()
        return false
    }
}

/// A console's way in.
final class ConsoleInput {
    private let descriptor: SharedDescriptor
    private let loop: EventLoop
    private var isWatched = false
    /// Nothing more will come.
    private(set) var isEnded = false
    /// Called when there is something to read.
    var onReadable: () -> Void = {}

    init(_ descriptor: SharedDescriptor, loop: EventLoop) throws(SystemError) {
        // One of its own: a loop has one registration for a descriptor, and a socket may be the console's output too.
        self.descriptor = SharedDescriptor(try descriptor.duplicate())
        self.loop = loop
        try descriptor.setNonBlocking(true)
    }

    deinit { watch(false) }

    /// Answers the bytes that came; nil when there are none now, or ever.
    func read(_ buffers: UnsafeBufferPointer<iovec>) -> Int? {
        while true {
            let count = readv(descriptor.raw, buffers.baseAddress, Int32(buffers.count))
            if count > 0 { return count }
            if count < 0, errno == EINTR { continue }
            isEnded = count == 0 || errno != EAGAIN
            return nil
        }
    }

    func watch(_ on: Bool) {
        let wanted = on && !isEnded
        guard wanted != isWatched else { return }
        if wanted {
            // Without the loop, input waits until the guest gives a buffer.
            isWatched = (try? loop.add(descriptor.raw, .readable) { [unowned self] _ in onReadable() }) != nil
        } else {
            loop.remove(descriptor.raw)
            isWatched = false
        }
    }
}
