/// The process that a span is of.
public struct TracedProcess: Sendable, Hashable {
    public var name: String
    /// On the host.
    public var pid: Int32

    public init(name: String, pid: Int32) { (self.name, self.pid) = (name, pid) }

    /// A pod's server.
    public static func server(_ pid: Int32) -> TracedProcess { TracedProcess(name: "martlet-server", pid: pid) }

    /// The agent of a pod's guest. Its pid is one that no process of the host can have (`PID_MAX_LIMIT` of the kernel is 2^22).
    public static let agent = TracedProcess(name: "martlet-agent (guest)", pid: 1 << 22 + 1)
}

/// A span that has ended.
public struct FinishedSpan: Sendable, Equatable {
    /// OpenTelemetry's kinds that there are here, with the numbers of its protocol.
    public enum Kind: Int, Sendable {
        case `internal` = 1
        case server, client
    }

    public var name: String
    /// As in `TraceContext`.
    public var traceID: String
    public var spanID: String
    /// Empty: none.
    public var parentID: String
    public var kind: Kind
    /// Nanoseconds since the epoch (`TraceClock`).
    public var start: UInt64
    public var end: UInt64
    public var process: TracedProcess
    public var attributes: [String: String]
    /// What failed; empty: nothing.
    public var error: String

    public init(
        name: String, traceID: String, spanID: String, parentID: String, kind: Kind = .internal, start: UInt64,
        end: UInt64, process: TracedProcess, attributes: [String: String] = [:], error: String = ""
    ) {
        (self.name, self.traceID, self.spanID, self.parentID, self.kind) = (name, traceID, spanID, parentID, kind)
        (self.start, self.end, self.process, self.attributes) = (start, max(start, end), process, attributes)
        self.error = error
    }
}

/// Takes spans that have ended. Returns at once.
public protocol SpanSink: Sendable {
    func take(_ span: FinishedSpan)
}

extension TraceContext {
    /// Records a span of another process, whose times are known.
    ///
    /// - Parameters:
    ///   - start: as in `FinishedSpan`.
    ///   - parent: nil: the span at which this context is.
    /// - Returns: its id.
    @discardableResult
    public func record(
        _ name: String, _ process: TracedProcess, start: UInt64, end: UInt64, parent: String? = nil
    ) -> String {
        let span = FinishedSpan(
            name: name, traceID: traceID, spanID: Self.newSpanID(), parentID: parent ?? spanID, start: start, end: end,
            process: process)
        for sink in sinks { sink.take(span) }
        return span.spanID
    }
}
