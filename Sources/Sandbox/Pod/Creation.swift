import LinuxSystem

/// A container that is being created. A kill, a deletion or the pod's end cancels it at any moment: whoever asked for the
/// container is answered at once, and what has been made of it is taken away beside that.
final class Creation: Sendable {
    /// Whether the pod is made with this container, and goes with its failure.
    let isFirst: Bool
    private let outcome: Promise<Result<Void, any Error>>
    private let done: Promise<Void>

    init(isFirst: Bool) throws {
        self.isFirst = isFirst
        outcome = try Promise()
        done = try Promise()
    }

    /// Runs the work.
    ///
    /// - Throws: what the work throws, or at once what `cancel` was given; the work goes on then until it sees that.
    func run(_ work: @Sendable @escaping () async throws -> Void) async throws {
        Task {
            do {
                try await work()
                outcome.settle(.success(()))
            } catch { outcome.settle(.failure(error)) }
            done.settle(())
        }
        try await outcome.value().get()
    }

    /// Whether it was cancelled, or has failed.
    var isCancelled: Bool { if case .failure? = outcome.current { true } else { false } }

    /// - Parameter error: the reply to whoever asked for the container.
    func cancel(_ error: any Error) { outcome.settle(.failure(error)) }

    /// Suspends until the work has returned and what a cancelled one had made is gone.
    func ended() async { await done.value() }
}
