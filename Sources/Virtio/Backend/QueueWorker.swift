import Glibc
import LinuxSystem
import Synchronization

/// A thread with an event loop that serves queues, so that requests that take long keep nobody else waiting.
final class QueueWorker: Sendable {
    /// Serves a queue; answers whether there is more to do.
    typealias Serve = @Sendable (_ queue: Int, _ lines: RingLines) -> Bool

    private struct Tasks {
        var waiting: [@Sendable (Loop) -> Void] = []
        var ended = false
    }

    /// What the thread alone touches.
    final class Loop {
        private let events: EventLoop
        private let serve: Serve
        private var queues: [Int: (kick: SharedDescriptor, lines: RingLines)] = [:]
        /// Queues with work left over, served again after each round.
        private var again: Set<Int> = []

        init(_ serve: @escaping Serve, wake: Int32, woken: @escaping () -> Void) throws(SystemError) {
            self.serve = serve
            events = try EventLoop()
            try events.add(wake, .readable) { _ in woken() }
        }

        /// Serves a queue from now on, at every kick.
        func add(_ queue: Int, kick: SharedDescriptor, lines: RingLines) throws(SystemError) {
            try events.add(kick.raw, .readable) { [unowned self] _ in
                // A descriptor that is no eventfd would be ready for ever.
                if consumeKick(kick.raw) {
                    again.insert(queue)
                } else {
                    lines.reportError()
                    remove(queue)
                }
            }
            queues[queue] = (kick, lines)
            again.insert(queue)
        }

        func remove(_ queue: Int) {
            if let (kick, _) = queues.removeValue(forKey: queue) { events.remove(kick.raw) }
            again.remove(queue)
        }

        func round() throws(SystemError) {
            try events.runOnce(timeoutMilliseconds: again.isEmpty ? -1 : 0)
            for queue in again {
                guard let lines = queues[queue]?.lines else { continue }
                if !serve(queue, lines) { again.remove(queue) }
            }
        }
    }

    private let tasks = Mutex(Tasks())
    private let wake: EventDescriptor

    init(_ name: String, serve: @escaping Serve) throws(SystemError) {
        wake = try EventDescriptor()
        try startThread(name, stackSize: 1 << 20) { [self] in run(serve) }
    }

    /// Runs `body` on the thread, and waits until that is done.
    func sync<R: Sendable>(_ body: @escaping @Sendable (Loop) -> R) throws -> R {
        let done = try Promise<R>()
        tasks.withLock { $0.waiting.append { done.settle(body($0)) } }
        wake.signal()
        while true { if let result = done.wait() { return result } }
    }

    /// Ends the thread after what it is doing.
    func end() {
        tasks.withLock { $0.ended = true }
        wake.signal()
    }

    private func run(_ serve: @escaping Serve) {
        do {
            let loop = try Loop(serve, wake: wake.descriptor.raw) { [unowned self] in wake.drain() }
            while true {
                let (ready, ended) = tasks.withLock { tasks in
                    defer { tasks.waiting = [] }
                    return (tasks.waiting, tasks.ended)
                }
                for task in ready { task(loop) }
                if ended { return }
                try loop.round()
            }
        } catch {
            // No epoll, no service; and whoever waits for this thread must not wait for ever.
            let line = Array("martlet-device: queue thread: \(error)\n".utf8)
            _ = write(2, line, line.count)
            exit(1)
        }
    }
}
