import NIOCore
import Synchronization

/// The messages that have come for one stream and were not taken yet, and how it ended. One taker at a time.
final class Mailbox: Sendable {
    /// The messages that may wait before the connection is no longer read (ttrpc has no flow control of its own).
    static let highMark = 64
    private static let lowMark = 16

    private typealias Answer = Result<[UInt8]?, TTRPCError>
    private struct State {
        var messages = CircularBuffer<[UInt8]>()
        var end: Answer?
        var taker: CheckedContinuation<Answer, Never>?
        var onDrained: (@Sendable () -> Void)?
    }

    private let state = Mutex(State())

    /// Adds a message; answers how many wait now. Nothing is added after the end.
    @discardableResult
    func put(_ message: [UInt8]) -> Int {
        let (taker, count) = state.withLock { state -> (CheckedContinuation<Answer, Never>?, Int) in
            if state.end != nil { return (nil, 0) }
            if let taker = state.taker.take() { return (taker, 0) }
            state.messages.append(message)
            return (nil, state.messages.count)
        }
        taker?.resume(returning: .success(message))
        return count
    }

    /// Ends the stream; the first end counts. After a failure nothing that still waits is handed out.
    func end(_ error: TTRPCError? = nil) {
        let answer = error.map(Answer.failure) ?? .success(nil)
        let taker = state.withLock { state -> CheckedContinuation<Answer, Never>? in
            if state.end != nil { return nil }
            state.end = answer
            if error != nil { state.messages.removeAll() }
            return state.taker.take()
        }
        taker?.resume(returning: answer)
    }

    /// The next message, nil at the end. Throws how the stream failed, or `cancelled` with the calling task.
    func take() async throws(TTRPCError) -> [UInt8]? {
        try await withTaskCancellationHandler {
            await withCheckedContinuation { take($0) }
        } onCancel: {
            let taker = state.withLock { $0.taker.take() }
            taker?.resume(returning: Self.cancelled)
        }.get()
    }

    /// Calls `action` once when few enough messages wait: now or after some were taken.
    func whenDrained(_ action: @escaping @Sendable () -> Void) {
        let now = state.withLock { state in
            if state.messages.count <= Self.lowMark { return true }
            state.onDrained = action
            return false
        }
        if now { action() }
    }

    private static let cancelled = Answer.failure(TTRPCError(.cancelled, "the call was cancelled"))

    private func take(_ taker: CheckedContinuation<Answer, Never>) {
        let (answer, drained) = state.withLock { state -> (Answer?, (@Sendable () -> Void)?) in
            if let message = state.messages.popFirst() {
                return (.success(message), state.messages.count <= Self.lowMark ? state.onDrained.take() : nil)
            }
            if let end = state.end { return (end, nil) }
            // The handler of cancellation may have run before there was a taker to answer.
            if Task.isCancelled { return (Self.cancelled, nil) }
            if state.taker != nil {
                return (.failure(TTRPCError(.failedPrecondition, "two tasks receive from one stream")), nil)
            }
            state.taker = taker
            return (nil, nil)
        }
        drained?()
        if let answer { taker.resume(returning: answer) }
    }
}
