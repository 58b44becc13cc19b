import Glibc
import LinuxSystem
import Synchronization

/// What a worker does with its queues; called on the worker's thread.
protocol QueueService: Sendable {
    /// Serves what is in a queue, in part if it is much. No kick is asked for.
    func serve(_ queue: Int, _ lines: RingLines) -> ServiceProgress
    /// Whether there is something to serve, at a glance.
    func isPending(_ queue: Int) -> Bool
    /// Asks the driver for a kick; true when there is something to serve already.
    ///
    /// - Parameter isIdle: the guest is quiet. A guest that is not will soon wake the worker anyway.
    func arm(_ queue: Int, isIdle: Bool) -> Bool
    /// Tells the driver of what is done and nobody waits for.
    func settle(_ queue: Int, _ lines: RingLines)
    /// As `ThreadedDevice` has them.
    func source(_ queue: Int) -> Int32?
    func waitsForSource(_ queue: Int) -> Bool
}

/// A thread with an event loop that serves queues, so that requests that take long keep nobody else waiting.
final class QueueWorker<Service: QueueService>: Sendable {
    private struct Tasks {
        var waiting: [@Sendable (WorkerLoop<Service>) -> Void] = []
        var ended = false
    }

    private let tasks = Mutex(Tasks())
    /// Whether there is something in `tasks`, to be seen without the lock.
    private let isWanted = Atomic(false)
    private let wake: EventDescriptor

    init(_ name: String, service: Service) throws(SystemError) {
        wake = try EventDescriptor()
        try startThread(name, stackSize: 1 << 20) { [self] in run(service) }
    }

    /// Runs `body` on the thread, and waits until that is done.
    func sync<R: Sendable>(_ body: @escaping @Sendable (WorkerLoop<Service>) -> R) throws -> R {
        let done = try Promise<R>()
        tasks.withLock { $0.waiting.append { done.settle(body($0)) } }
        call()
        while true { if let result = done.wait() { return result } }
    }

    /// Has the thread look at all of its queues and their sources again.
    func nudge() { call() }

    /// Ends the thread after what it is doing.
    func end() {
        tasks.withLock { $0.ended = true }
        call()
    }

    private func call() {
        isWanted.store(true, ordering: .releasing)
        wake.signal()
    }

    private func run(_ service: Service) {
        do {
            let loop = try WorkerLoop(service, wake: wake.descriptor.raw) { [unowned self] in wake.drain() }
            while true {
                if isWanted.exchange(false, ordering: .acquiring) {
                    let (ready, ended) = tasks.withLock { tasks in
                        defer { tasks.waiting = [] }
                        return (tasks.waiting, tasks.ended)
                    }
                    for task in ready { task(loop) }
                    if ended { return }
                }
                try loop.round(isWanted)
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
