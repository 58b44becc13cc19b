import Glibc
import LinuxSystem

/// A virtio console with one port (virtio 1.2, 5.3): the guest's hvc0.
final class ConsoleDevice: QueueDevice {
    static let receiveQueue = 0
    static let transmitQueue = 1
    /// Chains served before other queues get their turn.
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

    /// The guest's vCPU spins until the device has taken its output. So the device takes it at once, even without a reader.
    private func transmit(_ interrupt: () -> Void) throws(QueueError) -> Bool {
        let queue = queues[Self.transmitQueue]
        defer { output.flush() }
        return try queue.serve(budget: Self.budget, interrupt: interrupt) {
            output.write(queue.readable, count: Int(queue.readableBytes))
            return 0
        }
    }

    /// Reads input directly into the guest's buffers. The descriptor is watched only while there are buffers.
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
                // A chain without a writable buffer gets no bytes. That does not mean the end of the input.
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

/// The input of a console.
final class ConsoleInput {
    private let descriptor: SharedDescriptor
    private let loop: EventLoop
    private var isWatched = false
    /// Whether the input has ended.
    private(set) var isEnded = false
    /// Called when there is something to read.
    var onReadable: () -> Void = {}

    init(_ descriptor: SharedDescriptor, loop: EventLoop) throws(SystemError) {
        // A duplicate: a loop has one registration for each descriptor, and the same socket may be the console's output.
        self.descriptor = SharedDescriptor(try descriptor.duplicate())
        self.loop = loop
        try descriptor.setNonBlocking(true)
    }

    deinit { watch(false) }

    /// Reads into `buffers`.
    ///
    /// - Returns: the number of bytes; nil when there are none now, or the input has ended.
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
        let shallWatch = on && !isEnded
        guard shallWatch != isWatched else { return }
        if shallWatch {
            // If the loop refuses the descriptor, input waits until the guest adds a buffer.
            isWatched = (try? loop.add(descriptor.raw, .readable) { [unowned self] _ in onReadable() }) != nil
        } else {
            loop.remove(descriptor.raw)
            isWatched = false
        }
    }
}
