import Synchronization

/// Keeps spans until somebody asks for those of a trace.
public final class SpanCollector: SpanSink {
    /// How many are kept; of more the first ones stay.
    public static let limit = 4096

    private struct State {
        var spans: [FinishedSpan] = []
        var dropped = 0
    }

    private let state = Mutex(State())

    public init() {}

    public func take(_ span: FinishedSpan) {
        state.withLock { state in
            if state.spans.count < Self.limit { state.spans.append(span) } else { state.dropped += 1 }
        }
    }

    /// Counts spans that another process had no room for.
    public func noteDropped(_ count: Int) { state.withLock { $0.dropped += count } }

    /// Gives away the spans of a trace.
    ///
    /// - Returns: them, and how many of all traces there was no room for since the last call.
    public func remove(trace: String) -> (spans: [FinishedSpan], dropped: Int) {
        state.withLock { state in
            let spans = state.spans.filter { $0.traceID == trace }
            state.spans.removeAll { $0.traceID == trace }
            defer { state.dropped = 0 }
            return (spans, state.dropped)
        }
    }
}
