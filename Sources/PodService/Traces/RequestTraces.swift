import Glibc
import Logging
import Sandbox
import Synchronization
import TTRPC
import Traces
import Tracing

/// The spans of the requests that engines make of a pod. A request is traced where its metadata has a `traceparent`, as containerd sends it
/// where it traces itself. With a collector a start is, too, whose engine does not trace.
final class RequestTraces: Sendable {
    /// The key of the metadata of a request whose sender asks for the spans (`Inspection.Spans`).
    static let collectKey = "martlet-collect-spans"

    /// What is part of a start.
    private static let starts: Set = ["CreateSandbox", "StartSandbox", "Create", "Start"]
    /// What else has a span where its engine traces. Not what waits for something.
    private static let others: Set = [
        "Exec", "Delete", "Kill", "Pause", "Resume", "Update", "Checkpoint", "StopSandbox", "ShutdownSandbox",
    ]

    /// Of requests whose sender asks for them.
    let collector = SpanCollector()
    private let exporter: TraceExporter?
    /// The first request of a start whose engine does not trace: the others are part of it.
    private let first = Mutex<TraceContext?>(nil)

    /// Once in a process, a pod's server: it becomes the backend of swift-distributed-tracing.
    init(_ environment: PodEnvironment) {
        exporter = TraceExporter(environment.configuration, environment.logger)
        SpanTracer(.server(getpid())).bootstrap()
    }

    /// Runs a request's method, in a span of its own where it is traced.
    @Sendable func around(
        _ request: TTRPCContext, _ body: () async throws -> [UInt8]?
    ) async throws -> [UInt8]? {
        guard let place = place(of: request) else { return try await body() }
        let service = request.service.split(separator: ".").last ?? ""
        let context = InstrumentationContext(place)
        return try await withSpan("\(service).\(request.method)", context: context, ofKind: .server) { span in
            if place.spanID.isEmpty { first.withLock { $0 = $0 ?? span.context.trace } }
            return try await body()
        }
    }

    private func place(of request: TTRPCContext) -> TraceContext? {
        guard Self.starts.contains(request.method) || Self.others.contains(request.method) else { return nil }
        var sinks: [any SpanSink] = []
        if let exporter { sinks.append(exporter) }
        if request.metadata[Self.collectKey] != nil { sinks.append(collector) }
        if sinks.isEmpty { return nil }
        if let value = request.metadata[TraceContext.key] {
            var place = TraceContext(traceparent: value)
            place?.sinks = sinks
            return place
        }
        guard Self.starts.contains(request.method) else { return nil }
        return first.withLock { $0 } ?? TraceContext(sinks: sinks)
    }

    /// Sends what is still there.
    func finish() async { await exporter?.finish(within: .seconds(1)) }
}
