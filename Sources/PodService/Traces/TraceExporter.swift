import AgentContract
import LinuxSystem
import Logging
import NIOHTTP1
import Sandbox
import Synchronization
import Telemetry
import Traces

/// Sends spans to a collector of OpenTelemetry (OTLP/HTTP, JSON), behind whatever makes them: what there is no room for, and what the
/// collector does not take, is dropped and counted.
final class TraceExporter: SpanSink {
    /// How many wait at a time.
    private static let queueLimit = 2048
    /// How many a request has.
    private static let batch = 512
    /// Spans that end about the same time go together.
    private static let delay: Duration = .milliseconds(100)

    private struct State {
        var queue: [FinishedSpan] = []
        var isSending = false
        /// Nothing more is waited for.
        var isHasty = false
    }

    private let address: CollectorAddress
    private let state = Mutex(State())
    private let log: Mutex<(logger: Logger, pace: Pace)>

    init(_ address: CollectorAddress, _ logger: Logger) {
        self.address = address
        log = Mutex((logger, Pace(burst: 3, perSecond: 1.0 / 60)))
    }

    /// - Returns: nil where the configuration names no collector.
    convenience init?(_ configuration: Configuration, _ logger: Logger) {
        guard let address = configuration.trace.otlpEndpoint.flatMap(CollectorAddress.init) else { return nil }
        self.init(address, logger)
    }

    func take(_ span: FinishedSpan) {
        let (isDropped, begins) = state.withLock { state in
            guard state.queue.count < Self.queueLimit else { return (true, false) }
            state.queue.append(span)
            defer { state.isSending = true }
            return (false, !state.isSending)
        }
        if isDropped { MetricFamily.traceSpans.count(["dropped"]) }
        if begins { Task.detached(priority: .background) { await self.send() } }
    }

    /// Sends what there is, and returns when that is done or the time is over.
    func finish(within limit: Duration) async {
        state.withLock { $0.isHasty = true }
        let end = ContinuousClock.now + limit
        while state.withLock({ $0.isSending }), ContinuousClock.now < end {
            try? await Task.sleep(for: .milliseconds(5))
        }
    }

    private func send() async {
        while true {
            if !state.withLock({ $0.isHasty }) { try? await Task.sleep(for: Self.delay) }
            let spans = state.withLock { state in
                let spans = Array(state.queue.prefix(Self.batch))
                state.queue.removeFirst(spans.count)
                if spans.isEmpty { state.isSending = false }
                return spans
            }
            if spans.isEmpty { return }
            var result = "sent"
            do { try await post(spans) } catch {
                result = "dropped"
                warn("\(spans.count) spans are dropped: the collector \(address.host):\(address.port): \(error)")
            }
            for _ in spans { MetricFamily.traceSpans.count([result]) }
        }
    }

    private func post(_ spans: [FinishedSpan]) async throws {
        let request = HTTPRequest(
            server: .tcp(host: address.host, port: address.port), method: .POST, path: address.path,
            headers: ["Content-Type": "application/json"],
            body: try OTLPTrace(spans, version: martletVersion).bytes())
        let answer = try await request.answer(within: .seconds(5))
        guard (200..<300).contains(answer.status.code) else {
            throw SandboxError.failed("it answered \(answer.status.code)")
        }
    }

    private func warn(_ message: String) {
        let logger: Logger? = log.withLock { $0.pace.admit() == nil ? nil : $0.logger }
        logger?.warning("\(message)")
    }
}
