import AgentAPI
import AgentContract
import GuestSystem
import LinuxSystem
import Synchronization
import TTRPC

/// What a call is made of, for a host that traces it: times since the call came, and no others, as the guest's clock is not the host's.
final class CallSpans: Sendable {
    private let begin = monotonicNanoseconds()
    private let steps = Mutex<[AgentSpan]>([])

    /// - Returns: nil for a call that is not traced.
    init?(_ context: TTRPCContext) { if context.metadata["traceparent"] == nil { return nil } }

    fileprivate func add(_ name: String, from start: UInt64) {
        let span = AgentSpan.with {
            $0.name = name
            // Of the call as a whole.
            $0.parent = 1
            $0.start = start - begin
            $0.duration = monotonicNanoseconds() - start
        }
        steps.withLock { if $0.count < AgentLimit.spans - 1 { $0.append(span) } }
    }

    fileprivate func all(of call: String) -> [AgentSpan] {
        let whole = AgentSpan.with {
            $0.name = call
            $0.duration = monotonicNanoseconds() - begin
        }
        return [whole] + steps.withLock { $0 }
    }
}

extension CallSpans? {
    /// Runs a step of the call.
    func step<R>(_ name: String, _ body: () throws(AgentFailure) -> R) throws(AgentFailure) -> R {
        guard case .some(let spans) = self else { return try body() }
        let start = monotonicNanoseconds()
        defer { spans.add(name, from: start) }
        return try body()
    }

    /// For the reply.
    ///
    /// - Parameter call: what the call does.
    func finished(_ call: String) -> [AgentSpan] { self?.all(of: call) ?? [] }
}
