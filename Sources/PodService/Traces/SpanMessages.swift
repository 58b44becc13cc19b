import TaskAPI
import Traces

// Spans as `Inspection.Spans` has them.

extension PodSpan {
    init(_ span: FinishedSpan) {
        self.init()
        (name, spanID, parentID) = (span.name, span.spanID, span.parentID)
        kind = UInt32(span.kind.rawValue)
        (start, end) = (span.start, span.end)
        (process, pid) = (span.process.name, span.process.pid)
        (attributes, error) = (span.attributes, span.error)
    }
}

extension FinishedSpan {
    init(_ span: PodSpan, trace: String) {
        self.init(
            name: span.name, traceID: trace, spanID: span.spanID, parentID: span.parentID,
            kind: Kind(rawValue: Int(span.kind)) ?? .internal, start: span.start, end: span.end,
            process: TracedProcess(name: span.process, pid: span.pid), attributes: span.attributes, error: span.error)
    }
}
