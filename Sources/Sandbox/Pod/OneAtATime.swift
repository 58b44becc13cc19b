import Synchronization

/// Runs what it is asked to in the order of asking, each after the end of the one before, whether that failed or not.
final class OneAtATime: Sendable {
    private let last = Mutex<Task<Void, any Error>?>(nil)

    /// Answers when `body` is done.
    func run(_ body: @escaping @Sendable () async throws -> Void) async throws {
        let task = last.withLock { last in
            let before = last
            let task = Task {
                _ = await before?.result
                try await body()
            }
            last = task
            return task
        }
        try await task.value
    }

    /// Waits for all that was asked for until now.
    func settle() async { _ = await last.withLock { $0 }?.result }
}
