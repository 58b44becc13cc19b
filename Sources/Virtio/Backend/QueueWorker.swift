import Glibc
import LinuxSystem
import Synchronization

/// What a worker does with its queues; called on the worker's thread.
protocol QueueService: Sendable {
    /// Serves what is in a queue, at most as much as the device's budget allows. Asks for no kick.
    func serve(_ queue: Int, _ lines: RingLines) -> ServiceProgress
    /// Whether there is something to serve. Costs no system call.
    func isPending(_ queue: Int) -> Bool
    /// Asks the driver for a kick.
    ///
    /// - Parameter isIdle: the guest is idle. A guest that is not will soon wake the worker anyway.
    /// - Returns: whether there is something to serve already.
    func arm(_ queue: Int, isIdle: Bool) -> Bool
    /// Interrupts the driver for completed chains that no interrupt was sent for yet.
    func flushInterrupt(_ queue: Int, _ lines: RingLines)
    /// The same as in `ThreadedDevice`.
    func source(_ queue: Int) -> Int32?
    func waitsForSource(_ queue: Int) -> Bool
    var pollsSources: Bool { get }
}

/// A thread with an event loop that serves queues, so that a slow request delays no other device.
final class QueueWorker<Service: QueueService>: Sendable {
    private struct Tasks {
        var waiting: [@Sendable (WorkerLoop<Service>) -> Void] = []
        var ended = false
    }

    private let tasks = Mutex(Tasks())
    /// Whether there is something in `tasks`. The thread reads it without taking the lock.
    private let hasTasks = Atomic(false)
    private let wake: EventDescriptor

    init(_ name: String, service: Service) throws(SystemError) {
        wake = try EventDescriptor()
        try startThread(name, stackSize: 1 << 20) { [self] in run(service) }
    }

    /// Runs `body` on the worker's thread and waits for its result.
    func sync<R: Sendable>(_ body: @escaping @Sendable (WorkerLoop<Service>) -> R) throws -> R {
        let done = try Promise<R>()
        tasks.withLock { $0.waiting.append { done.settle(body($0)) } }
        wakeThread()
        while true { if let result = done.wait() { return result } }
    }

    /// Wakes the thread, which checks all of its queues and their sources again. Does not wait for it.
    func wakeUp() { wakeThread() }

    /// Ends the thread when it has finished what it is doing.
    func end() {
        tasks.withLock { $0.ended = true }
        wakeThread()
    }

    private func wakeThread() {
        hasTasks.store(true, ordering: .releasing)
        wake.signal()
    }

    private func run(_ service: Service) {
        do {
            let loop = try WorkerLoop(service, wake: wake.descriptor.raw) { [unowned self] in wake.drain() }
            while true {
                if hasTasks.exchange(false, ordering: .acquiring) {
                    let (ready, ended) = tasks.withLock { tasks in
                        defer { tasks.waiting = [] }
                        return (tasks.waiting, tasks.ended)
                    }
                    for task in ready { task(loop) }
                    if ended { return }
                }
                try loop.runRound(hasTasks)
            }
        } catch {
            // Without epoll the queues can't be served, and a caller that waits for this thread would wait for ever.
            endProcess("queue thread: \(error)")
        }
    }
}

/// Ends a process that can't go on safely, with a message on standard error. The server ends the pod then.
func endProcess(_ reason: String) -> Never {
    let line = Array("\(reason)\n".utf8)
    _ = write(2, line, line.count)
    exit(1)
}
