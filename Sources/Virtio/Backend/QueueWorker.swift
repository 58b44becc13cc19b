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
        private final class Served {
            let queue: Int
            let kick: SharedDescriptor
            let lines: RingLines
            /// There may be work: it is served in this round.
            var isPending = true

            init(_ queue: Int, _ kick: SharedDescriptor, _ lines: RingLines) {
                self.queue = queue
                self.kick = kick
                self.lines = lines
            }
        }

        private let events: EventLoop
        private let serve: Serve
        private var queues: [Served] = []

        init(_ serve: @escaping Serve, wake: Int32, woken: @escaping () -> Void) throws(SystemError) {
            self.serve = serve
            events = try EventLoop()
            try events.add(wake, .readable) { _ in woken() }
        }

        /// Serves a queue from now on, at every kick.
        func add(_ queue: Int, kick: SharedDescriptor, lines: RingLines) throws(SystemError) {
            let served = Served(queue, kick, lines)
            try events.add(kick.raw, .readable) { [unowned self] _ in
                // A descriptor that is no eventfd would be ready for ever.
                if consumeKick(kick.raw) {
                    served.isPending = true
                } else {
                    lines.reportError()
                    remove(queue)
                }
            }
            queues.append(served)
        }

        func remove(_ queue: Int) {
            guard let index = queues.firstIndex(where: { $0.queue == queue }) else { return }
            events.remove(queues.remove(at: index).kick.raw)
        }

        func round() throws(SystemError) {
            try events.runOnce(timeoutMilliseconds: queues.contains(where: \.isPending) ? 0 : -1)
            for served in queues where served.isPending {
                served.isPending = serve(served.queue, served.lines)
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
            endProcess("queue thread: \(error)")
        }
    }
}

/// The end of a process that can't go on safely. What it served becomes its host's concern.
func endProcess(_ reason: String) -> Never {
    let line = Array("\(reason)\n".utf8)
    _ = write(2, line, line.count)
    exit(1)
}
