import AgentAPI
import AgentContract
import LinuxSystem
import TTRPC
import Traces
import Tracing

extension GuestAgent {
    /// Makes a call, in a span of its own where the start is traced.
    ///
    /// - Parameters:
    ///   - method: the call's name.
    ///   - spans: what the agent says of the call in its reply.
    ///   - body: makes the call with this metadata.
    func traced<Reply: Sendable>(
        _ method: String, _ spans: KeyPath<Reply, [AgentSpan]>? = nil,
        _ body: (TTRPCMetadata) async throws -> Reply
    ) async throws -> Reply {
        guard InstrumentationContext.current?.trace != nil else { return try await body([:]) }
        return try await withSpan("Agent.\(method)", ofKind: .client) { span in
            guard span.isRecording, let trace = span.context.trace else { return try await body([:]) }
            let sent = TraceClock.now
            let reply = try await body([TraceContext.key: trace.traceparent])
            trace.record(spans.map { reply[keyPath: $0] } ?? [], sent: sent, received: TraceClock.now)
            return reply
        }
    }
}

extension TraceContext {
    /// Records what the agent says of a call, as spans within the call's. The guest's clock is not the host's: what the agent says of how long
    /// it took is placed in the middle of the time in which the host has waited, and nothing of it reaches beyond that.
    ///
    /// - Parameters:
    ///   - spans: the first one is the call as a whole.
    ///   - sent: when the host has sent the request, as `TraceClock` tells it.
    ///   - received: when it has had the reply.
    func record(_ spans: [AgentSpan], sent: UInt64, received: UInt64) {
        guard let whole = spans.first, received >= sent else { return }
        let length = min(whole.duration, received - sent)
        let begin = sent + (received - sent - length) / 2
        var placed: [(id: String, start: UInt64, end: UInt64)] = []
        for span in spans.prefix(AgentLimit.spans) {
            let number = Int(span.parent)
            let parent = number > 0 && number <= placed.count ? placed[number - 1] : nil
            let (earliest, latest) = (parent?.start ?? begin, parent?.end ?? begin + length)
            let start = min(max(begin + min(span.start, length), earliest), latest)
            let end = start + min(span.duration, latest - start)
            let id = record(printable(span.name, limit: 64), .agent, start: start, end: end, parent: parent?.id)
            placed.append((id, start, end))
        }
    }
}
