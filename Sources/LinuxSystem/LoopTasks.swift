import Synchronization

/// Work that other threads hand to the thread of an `EventLoop`, and wait for.
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

    /// Runs `body` on the loop's thread in its next round. Not to be called on that thread, which would wait for itself.
    public func sync<R: Sendable>(_ body: @escaping @Sendable () -> R) throws(SystemError) -> R {
        let done = try Promise<R>()
        post { done.settle(body()) }
        while true { if let result = done.wait() { return result } }
    }

    /// Has the loop's thread run `body` in its next round, and goes on.
    public func post(_ body: @escaping @Sendable () -> Void) {
        waiting.withLock { $0.append(body) }
        wake.signal()
    }
}
