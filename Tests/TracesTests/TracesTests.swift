import Foundation
import Testing
import Traces
import Tracing

@Suite struct TracesTests {
    private static let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    @Test func aTraceparentIsRead() {
        let context = TraceContext(traceparent: Self.header)
        #expect(context?.traceID == "0af7651916cd43dd8448eb211c80319c")
        #expect(context?.spanID == "b7ad6b7169203331")
        #expect(context?.traceparent == Self.header)
        // A later version may have more.
        #expect(TraceContext(traceparent: "01" + Self.header.dropFirst(2) + "-more")?.spanID == "b7ad6b7169203331")
    }

    @Test(arguments: [
        "", "00", "ff" + header.dropFirst(2), header + "-more", String(header.dropLast(2)) + "00", header.uppercased(),
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0af7651916cd43dd8448eb211c8031-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
        header + "\n",
    ])
    func whatIsNoneOrNotRecordedIsPassedOver(_ text: String) { #expect(TraceContext(traceparent: text) == nil) }

    @Test func spansGoToTheirTraceWithTheirParents() throws {
        let tracer = SpanTracer(TracedProcess(name: "test", pid: 7))
        let collector = SpanCollector()
        let trace = TraceContext(sinks: [collector])
        struct Failure: Error {}
        tracer.withSpan("outer", context: InstrumentationContext(trace), ofKind: .server) { outer in
            outer.attributes["id"] = "x"
            tracer.withSpan("inner") { _ in }
            _ = try? tracer.withSpan("failed") { _ in throw Failure() }
        }
        tracer.withSpan("untraced") { #expect(!$0.isRecording) }
        let (spans, dropped) = collector.remove(trace: trace.traceID)
        #expect(spans.map(\.name) == ["inner", "failed", "outer"] && dropped == 0)
        let outer = try #require(spans.last)
        #expect(outer.parentID.isEmpty && outer.kind == .server && outer.attributes == ["id": "x"])
        for span in spans.dropLast() {
            #expect(span.parentID == outer.spanID && span.traceID == trace.traceID)
            #expect(span.start >= outer.start && span.end <= outer.end && span.start <= span.end)
        }
        #expect(spans[1].error.contains("Failure") && spans[0].error.isEmpty)
        #expect(collector.remove(trace: trace.traceID).spans.isEmpty)
    }

    @Test func aCollectorHasRoomForSoMany() {
        let collector = SpanCollector()
        let trace = TraceContext(sinks: [collector])
        for _ in 0..<SpanCollector.limit + 3 { trace.record("x", .agent, start: 1, end: 2) }
        let (spans, dropped) = collector.remove(trace: trace.traceID)
        #expect(spans.count == SpanCollector.limit && dropped == 3)
        collector.noteDropped(2)
        #expect(collector.remove(trace: trace.traceID).dropped == 2)
    }

    private func span(_ name: String, _ start: UInt64, _ end: UInt64, _ process: TracedProcess) -> FinishedSpan {
        FinishedSpan(
            name: name, traceID: "0af7651916cd43dd8448eb211c80319c", spanID: "b7ad6b7169203331", parentID: "",
            start: start, end: end, process: process, error: name == "bad" ? "it \"failed\"" : "")
    }

    @Test func chromeSeesSpansThatOverlapInRowsOfTheirOwn() throws {
        let server = TracedProcess(name: "server", pid: 10)
        let base: UInt64 = 1_700_000_000_000_000_000
        let spans = [
            span("whole", base, base + 9000, server), span("one", base + 1000, base + 5000, server),
            span("beside", base + 2000, base + 6000, server), span("after", base + 6000, base + 7000, server),
            span("bad", base + 1500, base + 2500, .agent),
        ]
        let json = try JSONSerialization.jsonObject(with: Data(ChromeTrace(spans.reversed()).bytes()))
        let events = try #require((json as? [String: Any])?["traceEvents"] as? [[String: Any]])
        let names = events.filter { $0["ph"] as? String == "M" }.compactMap {
            ($0["args"] as? [String: String])?["name"]
        }
        #expect(names == ["server", "martlet-agent (guest)"])
        func event(_ name: String) -> [String: Any] { events.first { $0["name"] as? String == name } ?? [:] }
        #expect(event("whole")["tid"] as? Int == 1 && event("one")["tid"] as? Int == 1)
        #expect(event("beside")["tid"] as? Int == 2 && event("after")["tid"] as? Int == 1)
        #expect(event("beside")["ts"] as? Double == 2 && event("beside")["dur"] as? Double == 4)
        #expect((event("bad")["args"] as? [String: String])?["error"] == "it \"failed\"")
        #expect(event("bad")["pid"] as? Int == 4_194_305)
    }

    @Test func aCollectorOfOpenTelemetryGetsItsJSON() throws {
        let machine = TracedProcess(name: "qemu", pid: 11)
        let trace = OTLPTrace(
            [span("bad", 1_700_000_000_000_000_001, 1_700_000_000_000_000_002, machine)], version: "1")
        let text = String(decoding: try trace.bytes(), as: UTF8.self)
        #expect(
            text == """
                {"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"qemu"}},\
                {"key":"process.pid","value":{"intValue":"11"}}]},"scopeSpans":[{"scope":{"name":"martlet","version":"1"},\
                "spans":[{"attributes":[],"endTimeUnixNano":"1700000000000000002","kind":1,"name":"bad",\
                "spanId":"b7ad6b7169203331","startTimeUnixNano":"1700000000000000001","status":{"code":2,"message":\
                "it \\"failed\\""},"traceId":"0af7651916cd43dd8448eb211c80319c"}]}]}]}
                """)
    }
}
