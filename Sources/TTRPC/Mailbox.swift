import NIOCore
import Synchronization

/// The messages of a stream that were not received yet, and how the stream ended. One task receives at a time.
final class Mailbox: Sendable {
    /// The number of waiting messages at which the connection stops reading. ttrpc has no flow control of its own.
    static let highMark = 64
    private static let lowMark = 16

    private typealias Outcome = Result<[UInt8]?, TTRPCError>
    private struct State {
        var messages = CircularBuffer<[UInt8]>()
        var end: Outcome?
        var receiver: CheckedContinuation<Outcome, Never>?
        var onDrained: (@Sendable () -> Void)?
    }

    private let state = Mutex(State())

    /// Adds a message, unless the stream has ended.
    ///
    /// - Returns: the number of waiting messages.
    @discardableResult
    func put(_ message: [UInt8]) -> Int {
        let (receiver, count) = state.withLock { state -> (CheckedContinuation<Outcome, Never>?, Int) in
            if state.end != nil { return (nil, 0) }
            if let receiver = state.receiver.take() { return (receiver, 0) }
            state.messages.append(message)
            return (nil, state.messages.count)
        }
        receiver?.resume(returning: .success(message))
        return count
    }

    /// Ends the stream. Only the first call counts. After a failure, waiting messages are dropped.
    func end(_ error: TTRPCError? = nil) {
        let outcome = error.map(Outcome.failure) ?? .success(nil)
        let receiver = state.withLock { state -> CheckedContinuation<Outcome, Never>? in
            if state.end != nil { return nil }
            state.end = outcome
            if error != nil { state.messages.removeAll() }
            return state.receiver.take()
        }
        receiver?.resume(returning: outcome)
    }

    /// Receives the next message.
    ///
    /// - Returns: nil at the end of the stream.
    /// - Throws: the stream's failure, or `cancelled` when the calling task is cancelled.
    func receive() async throws(TTRPCError) -> [UInt8]? {
        try await withTaskCancellationHandler {
            await withCheckedContinuation { receive($0) }
        } onCancel: {
            let receiver = state.withLock { $0.receiver.take() }
            receiver?.resume(returning: Self.cancelled)
        }.get()
    }

    /// Calls `action` once, when few enough messages wait: now or later.
    func whenDrained(_ action: @escaping @Sendable () -> Void) {
        let now = state.withLock { state in
            if state.messages.count <= Self.lowMark { return true }
            state.onDrained = action
            return false
        }
        if now { action() }
    }

    private static let cancelled = Outcome.failure(TTRPCError(.cancelled, "the call was cancelled"))

    private func receive(_ receiver: CheckedContinuation<Outcome, Never>) {
        let (outcome, drained) = state.withLock { state -> (Outcome?, (@Sendable () -> Void)?) in
            if let message = state.messages.popFirst() {
                return (.success(message), state.messages.count <= Self.lowMark ? state.onDrained.take() : nil)
            }
            if let end = state.end { return (end, nil) }
            // The cancellation handler may have run before the receiver was registered.
            if Task.isCancelled { return (Self.cancelled, nil) }
            if state.receiver != nil {
                return (.failure(TTRPCError(.failedPrecondition, "two tasks receive from one stream")), nil)
            }
            state.receiver = receiver
            return (nil, nil)
        }
        drained?()
        if let outcome { receiver.resume(returning: outcome) }
    }
}
