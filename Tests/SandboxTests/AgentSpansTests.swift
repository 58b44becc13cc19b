import AgentAPI
import AgentContract
import Testing
import Traces

@testable import Sandbox

/// What a guest's agent says of its calls, and what it may not.
@Suite struct AgentSpansTests {
    private func record(_ spans: [AgentSpan], sent: UInt64 = 1_000_000, received: UInt64 = 1_001_000) -> [FinishedSpan]
    {
        let collector = SpanCollector()
        var trace = TraceContext(sinks: [collector])
        trace.spanID = "b7ad6b7169203331"
        trace.record(spans, sent: sent, received: received)
        return collector.remove(trace: trace.traceID).spans
    }

    private func span(_ name: String, parent: UInt32 = 0, _ start: UInt64, _ duration: UInt64) -> AgentSpan {
        .with { ($0.name, $0.parent, $0.start, $0.duration) = (name, parent, start, duration) }
    }

    @Test func theyAreInTheMiddleOfTheCall() {
        let spans = record([
            span("whole", 0, 600), span("step", parent: 1, 100, 200), span("inner", parent: 2, 150, 50),
        ])
        #expect(
            spans.map { [$0.start, $0.end] } == [
                [1_000_200, 1_000_800], [1_000_300, 1_000_500], [1_000_350, 1_000_400],
            ])
        #expect(spans[0].parentID == "b7ad6b7169203331" && spans[1].parentID == spans[0].spanID)
        #expect(spans[2].parentID == spans[1].spanID && spans.allSatisfy { $0.process == .agent })
    }

    @Test func numbersThatCannotBeStayWithinTheCall() {
        let most = UInt64.max
        let spans = record([
            span("whole", most, most), span("late", parent: 1, most, most), span("ahead", parent: 9, 0, 10),
            span("itself", parent: UInt32.max, 5, most),
        ])
        #expect(spans.count == 4)
        for span in spans { #expect(span.start >= 1_000_000 && span.end <= 1_001_000 && span.start <= span.end) }
        #expect(spans[2].parentID == "b7ad6b7169203331" && spans[3].parentID == "b7ad6b7169203331")
        #expect(record([span("whole", 0, 5)], sent: 10, received: 9).isEmpty)
        #expect(record([]).isEmpty)
    }

    @Test func namesAreLinesAndFew() {
        let spans = record(
            Array(repeating: span("a\nb\u{1b}[2J" + String(repeating: "x", count: 999), 0, 1), count: 1000))
        #expect(spans.count == AgentLimit.spans)
        #expect(spans.allSatisfy { $0.name.utf8.count < 80 && !$0.name.contains("\n") && !$0.name.contains("\u{1b}") })
    }

    @Test(arguments: [
        ("http://127.0.0.1:4318", "127.0.0.1", 4318, "/v1/traces"),
        ("http://collector/", "collector", 4318, "/v1/traces"),
        ("http://[::1]:99/otlp/", "::1", 99, "/otlp/v1/traces"), ("http://[::1]", "::1", 4318, "/v1/traces"),
    ])
    func aCollectorIsFound(_ text: String, host: String, port: Int, path: String) {
        let address = CollectorAddress(text)
        #expect(address?.host == host && address?.port == port && address?.path == path)
    }

    @Test(arguments: [
        "", "127.0.0.1:4318", "https://collector", "http://", "http://:4318", "http://a:0", "http://a:65536",
        "http://a:x",
        "http://a b", "http://a/?x", "http://user@a", "http://[::1", "http://a\n",
    ])
    func whatIsNoCollectorIsRefused(_ text: String) { #expect(CollectorAddress(text) == nil) }
}
