public import Tracing

/// The place in a trace at which spans begin, as the W3C's Trace Context has it
/// (https://www.w3.org/TR/trace-context/, section 3.2), and where finished spans go.
public struct TraceContext: Sendable {
    /// 32 hexadecimal digits, not all of them 0.
    public var traceID: String
    /// The span that is the parent of those that begin here, 16 hexadecimal digits; empty: there is none.
    public var spanID: String
    /// Take each span that ends; empty: none is recorded.
    public var sinks: [any SpanSink]

    public init(traceID: String, spanID: String, sinks: [any SpanSink] = []) {
        (self.traceID, self.spanID, self.sinks) = (traceID, spanID, sinks)
    }

    /// A trace that begins here.
    public init(sinks: [any SpanSink]) {
        self.init(traceID: Self.newTraceID(), spanID: "", sinks: sinks)
    }

    // MARK: traceparent

    /// The key of the header, and of the metadata of a ttrpc request.
    public static let key = "traceparent"

    /// The header's value, which says that the trace is recorded; empty where there is no span.
    public var traceparent: String { spanID.isEmpty ? "" : "00-\(traceID)-\(spanID)-01" }

    /// - Parameter traceparent: the header's value: `VERSION-TRACE-SPAN-FLAGS`.
    /// - Returns: nil for one that is malformed, and for a trace that is not recorded (the flag `sampled` is not set).
    public init?(traceparent: String) {
        let parts = traceparent.utf8.split(separator: UInt8(ascii: "-"), omittingEmptySubsequences: false)
        guard parts.count >= 4, traceparent.utf8.count <= 512, let version = Self.hex(parts[0], 2), version != "ff",
            version != "00" || parts.count == 4, let trace = Self.hex(parts[1], 32), let span = Self.hex(parts[2], 16),
            let flags = Self.hex(parts[3], 2).flatMap({ UInt8($0, radix: 16) }), flags & 1 == 1,
            trace.contains(where: { $0 != "0" }), span.contains(where: { $0 != "0" })
        else { return nil }
        self.init(traceID: trace, spanID: span)
    }

    /// Lower case digits, as many as there must be.
    private static func hex(_ text: some Collection<UInt8>, _ count: Int) -> String? {
        let isHex = text.allSatisfy {
            (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) || (UInt8(ascii: "a")...UInt8(ascii: "f")).contains($0)
        }
        return isHex && text.count == count ? String(decoding: text, as: UTF8.self) : nil
    }

    // MARK: New ids

    static func newTraceID() -> String { digits(.random(in: 1...UInt64.max)) + digits(.random(in: 0...UInt64.max)) }

    static func newSpanID() -> String { digits(.random(in: 1...UInt64.max)) }

    private static func digits(_ number: UInt64) -> String {
        let digits = String(number, radix: 16)
        return String(repeating: "0", count: 16 - digits.utf8.count) + digits
    }
}

extension InstrumentationContext {
    private enum TraceKey: InstrumentationContextKey { typealias Value = TraceContext }

    /// nil: nothing is traced here.
    public var trace: TraceContext? {
        get { self[TraceKey.self] }
        set { self[TraceKey.self] = newValue }
    }

    /// Where a trace begins, or goes on.
    public init(_ trace: TraceContext?) {
        self = .topLevel
        self.trace = trace
    }
}
