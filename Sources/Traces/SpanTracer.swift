import LinuxSystem
import Synchronization
public import Tracing

/// The backend of swift-distributed-tracing: spans go to the sinks of the trace that they are part of (`TraceContext`). Where nothing is
/// traced, a span is empty.
public struct SpanTracer: Tracer {
    private let process: TracedProcess

    /// - Parameter process: this one.
    public init(_ process: TracedProcess) { self.process = process }

    /// Makes this the backend of the process: once.
    public func bootstrap() { InstrumentationSystem.bootstrap(self) }

    public func startSpan<Instant: TracerInstant>(
        _ operationName: String, context: @autoclosure () -> InstrumentationContext, ofKind kind: SpanKind,
        at instant: @autoclosure () -> Instant, function: String, file fileID: String, line: UInt
    ) -> TracedSpan {
        let context = context()
        guard let trace = context.trace, !trace.sinks.isEmpty else { return TracedSpan(context: context) }
        // A caller that names no time means now, which is told by one clock for all.
        let isNow = Instant.self == DefaultTracerClock.Timestamp.self
        return TracedSpan(
            operationName, kind, in: context, of: trace, process,
            start: isNow ? TraceClock.now : instant().nanosecondsSinceEpoch)
    }

    public func forceFlush() {}

    public func extract<Carrier, Extract: Extractor>(
        _ carrier: Carrier, into context: inout InstrumentationContext, using extractor: Extract
    ) where Extract.Carrier == Carrier {
        guard let value = extractor.extract(key: TraceContext.key, from: carrier) else { return }
        context.trace = TraceContext(traceparent: value)
    }

    public func inject<Carrier, Inject: Injector>(
        _ context: InstrumentationContext, into carrier: inout Carrier, using injector: Inject
    ) where Inject.Carrier == Carrier {
        guard let value = context.trace?.traceparent, !value.isEmpty else { return }
        injector.inject(value, forKey: TraceContext.key, into: &carrier)
    }
}

/// A span of `SpanTracer`.
public struct TracedSpan: Span {
    private struct State {
        var span: FinishedSpan
        var hasEnded = false
    }

    /// Shared by all copies of the span.
    private final class Recording: Sendable {
        let state: Mutex<State>
        init(_ span: FinishedSpan) { state = Mutex(State(span: span)) }
    }

    public let context: InstrumentationContext
    /// nil: nothing is traced.
    private let recording: Recording?

    fileprivate init(context: InstrumentationContext) {
        self.context = context
        recording = nil
    }

    fileprivate init(
        _ name: String, _ kind: SpanKind, in context: InstrumentationContext, of parent: TraceContext,
        _ process: TracedProcess, start: UInt64
    ) {
        let span = FinishedSpan(
            name: name, traceID: parent.traceID, spanID: TraceContext.newSpanID(), parentID: parent.spanID,
            kind: FinishedSpan.Kind(kind), start: start, end: start, process: process)
        var own = parent
        own.spanID = span.spanID
        var context = context
        context.trace = own
        self.context = context
        recording = Recording(span)
    }

    private func change(_ body: (inout FinishedSpan) -> Void) {
        recording?.state.withLock { if !$0.hasEnded { body(&$0.span) } }
    }

    public var operationName: String {
        get { recording?.state.withLock { $0.span.name } ?? "" }
        nonmutating set { change { $0.name = newValue } }
    }

    /// As text.
    public var attributes: SpanAttributes {
        get {
            let all = recording?.state.withLock { $0.span.attributes } ?? [:]
            return SpanAttributes(all.mapValues { SpanAttribute.string($0) })
        }
        nonmutating set {
            var texts: [String: String] = [:]
            // No sequence, so there is no other way.
            // swift-format-ignore: ReplaceForEachWithForLoop
            newValue.forEach { key, value in texts[key] = Self.text(value) }
            change { [texts] in $0.attributes = texts }
        }
    }

    private static func text(_ value: SpanAttribute) -> String {
        switch value {
        case .string(let text): text
        case .int32(let number): "\(number)"
        case .int64(let number): "\(number)"
        case .double(let number): "\(number)"
        case .bool(let flag): "\(flag)"
        default: "\(value)"
        }
    }

    public var isRecording: Bool { recording?.state.withLock { !$0.hasEnded } ?? false }

    public func setStatus(_ status: SpanStatus) {
        guard status.code == .error else { return }
        change { if $0.error.isEmpty { $0.error = status.message ?? "error" } }
    }

    public func recordError<Instant: TracerInstant>(
        _ error: any Error, attributes: SpanAttributes, at instant: @autoclosure () -> Instant
    ) {
        guard recording != nil else { return }
        // It may have text of the guest.
        let text = printable("\(error)", limit: 1024)
        change { $0.error = text }
    }

    // Nothing here has them.
    public func addEvent(_ event: SpanEvent) {}
    public func addLink(_ link: SpanLink) {}

    public func end<Instant: TracerInstant>(at instant: @autoclosure () -> Instant) {
        guard let recording, let sinks = context.trace?.sinks else { return }
        let isNow = Instant.self == DefaultTracerClock.Timestamp.self
        let time = isNow ? TraceClock.now : instant().nanosecondsSinceEpoch
        let span: FinishedSpan? = recording.state.withLock { state in
            if state.hasEnded { return nil }
            state.hasEnded = true
            state.span.end = max(state.span.start, time)
            return state.span
        }
        guard let span else { return }
        for sink in sinks { sink.take(span) }
    }
}

extension FinishedSpan.Kind {
    fileprivate init(_ kind: SpanKind) {
        switch kind {
        case .server: self = .server
        case .client: self = .client
        default: self = .internal
        }
    }
}
