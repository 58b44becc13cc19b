import Glibc
import LinuxSystem
import Logging
import Sandbox
import TTRPC
import TaskAPI
import Traces
import Tracing

/// The trace of one command (`--trace FILE`): its own spans, and those of the server that it asks.
final class CommandTrace: Sendable {
    private let file: String
    private let collector = SpanCollector()
    private let exporter: TraceExporter?
    private let trace: TraceContext
    private let logger: Logger

    /// - Parameters:
    ///   - file: gets the trace at the command's end; made now, so that a path that can't be written is known before anything is done.
    ///   - configuration: names the collector that gets the spans too.
    init(file: String, _ configuration: Configuration?, _ logger: Logger) throws {
        self.file = file
        self.logger = logger
        _ = try OwnedDescriptor.open(file, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o644)
        exporter = configuration.flatMap { TraceExporter($0, logger) }
        var sinks: [any SpanSink] = [collector]
        if let exporter { sinks.append(exporter) }
        var trace = Self.inherited ?? TraceContext(sinks: sinks)
        trace.sinks = sinks
        self.trace = trace
        SpanTracer(TracedProcess(name: "martlet", pid: getpid())).bootstrap()
    }

    /// The trace that whoever has started the command is in (the environment variable `TRACEPARENT`).
    private static var inherited: TraceContext? {
        getenv("TRACEPARENT").flatMap { TraceContext(traceparent: String(cString: $0)) }
    }

    /// The metadata of a request that is part of a start: where the command is in a trace, or was started in one.
    static var metadata: TTRPCMetadata {
        if let trace = InstrumentationContext.current?.trace {
            return [TraceContext.key: trace.traceparent, RequestTraces.collectKey: "1"]
        }
        return inherited.map { [TraceContext.key: $0.traceparent] } ?? [:]
    }

    /// Runs a command, and writes the file when it has ended, whether that failed or not.
    func record<R: Sendable>(_ name: String, _ body: () async throws -> R) async throws -> R {
        let result: Result<R, any Error>
        do {
            result = .success(
                try await withSpan(name, context: InstrumentationContext(trace)) { _ in try await body() })
        } catch { result = .failure(error) }
        do { try write() } catch { logger.warning("the trace is not written: \(error)") }
        await exporter?.finish(within: .seconds(1))
        return try result.get()
    }

    private func write() throws {
        let (spans, dropped) = collector.remove(trace: trace.traceID)
        if dropped > 0 { logger.warning("\(file): \(dropped) spans are missing") }
        let file = try OwnedDescriptor.open(file, O_WRONLY | O_TRUNC)
        try writeAll(try ChromeTrace(spans).bytes(), to: file.raw, self.file)
    }

    /// Takes over what the server has kept of this command's trace. What it does later has no spans here.
    static func collect(from client: TTRPCClient) async {
        guard let trace = InstrumentationContext.current?.trace,
            let reply = try? await InspectionServiceClient(client).spans(.with { $0.traceID = trace.traceID })
        else { return }
        // A collector has them from the server.
        guard let collector = trace.sinks.lazy.compactMap({ $0 as? SpanCollector }).first else { return }
        collector.noteDropped(Int(reply.dropped))
        for span in reply.spans { collector.take(FinishedSpan(span, trace: trace.traceID)) }
    }
}
