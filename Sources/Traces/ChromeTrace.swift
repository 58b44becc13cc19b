/// Spans as Chrome's trace viewer and Perfetto read them: the JSON object form of the Trace Event Format, with a complete event for each
/// span and the names of the processes.
public struct ChromeTrace: Sendable, Encodable {
    /// A complete event (`X`), or one of metadata (`M`).
    struct Event: Sendable, Encodable {
        var name: String
        var cat: String?
        var ph: String
        var pid: Int32
        var tid: Int
        /// Microseconds; not of metadata.
        var ts: Double?
        var dur: Double?
        var args: [String: String]
    }

    let displayTimeUnit = "ms"
    let traceEvents: [Event]

    public init(_ spans: [FinishedSpan]) {
        let spans = spans.sorted { ($0.start, $1.end) < ($1.start, $0.end) }
        // A double has no room for the nanoseconds since the epoch.
        let begin = spans.first?.start ?? 0
        var lanes: [TracedProcess: Lanes] = [:]
        var events: [Event] = []
        for span in spans {
            if lanes[span.process] == nil {
                let name = ["name": span.process.name]
                events.append(Event(name: "process_name", ph: "M", pid: span.process.pid, tid: 0, args: name))
            }
            let lane = lanes[span.process, default: Lanes()].take(span)
            events.append(Event(span, lane: lane, after: begin))
        }
        traceEvents = events
    }

    /// JSON.
    public func bytes() throws -> [UInt8] { try traceJSON(self) }

    /// The rows of one process. In one row a span may be within another, but not overlap it: spans that run side by side get
    /// rows of their own.
    private struct Lanes {
        /// The ends of the open spans of each row.
        private var rows: [[UInt64]] = []

        /// - Parameter span: begins no earlier than those before it.
        /// - Returns: its row, from 1 on.
        mutating func take(_ span: FinishedSpan) -> Int {
            for row in rows.indices {
                rows[row].removeAll { $0 <= span.start }
                guard rows[row].allSatisfy({ $0 >= span.end }) else { continue }
                rows[row].append(span.end)
                return row + 1
            }
            rows.append([span.end])
            return rows.count
        }
    }
}

extension ChromeTrace.Event {
    fileprivate init(_ span: FinishedSpan, lane: Int, after begin: UInt64) {
        name = span.name
        cat = "martlet"
        ph = "X"
        (pid, tid) = (span.process.pid, lane)
        (ts, dur) = (Double(span.start - begin) / 1000, Double(span.end - span.start) / 1000)
        args = span.attributes
        args["trace_id"] = span.traceID
        args["span_id"] = span.spanID
        if !span.parentID.isEmpty { args["parent_id"] = span.parentID }
        if !span.error.isEmpty { args["error"] = span.error }
    }
}
