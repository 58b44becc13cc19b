import Synchronization

/// Tasks that other threads run on the thread of an `EventLoop`.
public final class LoopTasks: Sendable {
    private let waiting = Mutex<[@Sendable () -> Void]>([])
    private let wake: EventDescriptor

    /// To be called on the loop's thread.
    public init(_ loop: EventLoop) throws(SystemError) {
        wake = try EventDescriptor()
        try loop.add(wake.descriptor.raw, .readable) { [unowned self] _ in
            wake.drain()
            let ready = waiting.withLock { tasks in
                defer { tasks = [] }
                return tasks
            }
            for task in ready { task() }
        }
    }

    /// Runs `body` on the loop's thread in its next round and waits for the result. A call from the loop's own thread would
    /// deadlock.
    public func sync<R: Sendable>(_ body: @escaping @Sendable () -> R) throws(SystemError) -> R {
        let done = try Promise<R>()
        post { done.settle(body()) }
        while true { if let result = done.wait() { return result } }
    }

    /// Runs `body` on the loop's thread in its next round. Does not wait.
    public func post(_ body: @escaping @Sendable () -> Void) {
        waiting.withLock { $0.append(body) }
        wake.signal()
    }
}
