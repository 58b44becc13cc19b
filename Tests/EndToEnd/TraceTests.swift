import FoundationEssentials
import Glibc
import Testing

extension Containers {
    /// The traces of starts.
    @Suite struct TraceTests {
        private struct Span {
            var name: String
            var id: String
            var parent: String
            var trace: String
            /// Microseconds.
            var start: Double
            var end: Double
            var process: String
            var pid: Int
            var error: String
        }

        private static let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

        /// Reads Chrome's form.
        private func read(_ file: String) throws -> [Span] {
            let bytes = Data(try #require(Leftovers.read(file)).utf8)
            let events = try JSONDecoder().decode(JSONValue.self, from: bytes)["traceEvents"].list
            var names: [Int: String] = [:]
            for event in events where event["name"].text == "process_name" && event["ph"].text == "M" {
                names[event["pid"].int ?? 0] = event["args"]["name"].text
            }
            return events.filter { $0["ph"].text == "X" }.map { event in
                guard case .number(let start) = event["ts"], case .number(let length) = event["dur"] else {
                    fatalError("\(event)")
                }
                let (pid, args) = (event["pid"].int ?? 0, event["args"])
                return Span(
                    name: event["name"].text, id: args["span_id"].text, parent: args["parent_id"].text,
                    trace: args["trace_id"].text, start: start, end: start + length, process: names[pid] ?? "",
                    pid: pid, error: args["error"].text)
            }
        }

        /// Each span's parent is there and encloses it. Processes tell the time by clocks of their own, which are as exact as that.
        private func checkParents(_ spans: [Span], root: String = "") {
            let byID = Dictionary(spans.map { ($0.id, $0) }) { $1 }
            #expect(byID.count == spans.count && Set(spans.map(\.trace)).count == 1)
            for span in spans where span.parent != root {
                guard let parent = byID[span.parent] else {
                    Issue.record("\(span) has no parent")
                    continue
                }
                let tolerance = parent.process == span.process ? 0.01 : 50
                #expect(
                    span.start >= parent.start - tolerance && span.end <= parent.end + tolerance,
                    "\(span) is not within \(parent)")
            }
        }

        @Test func aRunIsOneTraceOfCommandServerMachineAndAgent() throws {
            try Scene.play { scene in
                let (file, id) = ("\(scene.directory)/trace.json", scene.newID())
                let outcome = try scene.run(bundle: scene.bundle(args: ["true"]), id: id, options: ["--trace", file])
                #expect(outcome.code == 0 && outcome.errorText.isEmpty, "\(outcome.errorText)")
                let spans = try read(file)
                checkParents(spans)
                #expect(spans.filter { $0.parent.isEmpty }.map(\.name) == ["run \(id)"])
                let machine = Lab.driver?.machineProcess ?? ""
                let expected = [
                    "martlet": ["run \(id)", "prepare", "create", "start", "container"],
                    "martlet-server": [
                        "Task.Create", "launch", "root file system", "network", "Agent.CreateSandbox",
                        "Agent.CreateContainer", "Task.Start", "Agent.StartContainer",
                    ],
                    machine: ["machine", "spawn", "boot", "connect to the agent"],
                    "martlet-agent (guest)": [
                        "create the sandbox", "create the container", "set the container up", "execute the program",
                    ],
                ]
                for (process, names) in expected {
                    let found = spans.filter { $0.process == process }
                    let missing = Set(names).subtracting(found.map(\.name))
                    #expect(missing.isEmpty, "\(process) lacks \(missing): \(spans.map(\.name))")
                    #expect(Set(found.map(\.pid)).count == 1)
                }
                let parents = Dictionary(spans.map { ($0.id, $0.name) }) { $1 }
                func parent(_ name: String) -> String? {
                    spans.first { $0.name == name }.flatMap { parents[$0.parent] }
                }
                #expect(parent("Task.Create") == "create" && parent("launch") == "Task.Create")
                #expect(parent("machine") == "launch" && parent("boot") == "machine")
                #expect(parent("create the container") == "Agent.CreateContainer")
                #expect(parent("set the container up") == "create the container")
                #expect(spans.allSatisfy { $0.error.isEmpty })
                // Software that boots takes longer than a call.
                let boot = try #require(spans.first { $0.name == "boot" })
                #expect(boot.end - boot.start > 10_000)
            }
        }

        @Test func aFailedRunHasATraceWithItsError() throws {
            try Scene.play { scene in
                let file = "\(scene.directory)/trace.json"
                let outcome = try scene.run(bundle: scene.bundle(args: ["/nothing"]), options: ["--trace", file])
                #expect(outcome.code == 1 && outcome.errorText.contains("/nothing"), "\(outcome.errorText)")
                let spans = try read(file)
                checkParents(spans)
                for name in ["create", "Task.Create", "Agent.CreateContainer"] {
                    let span = spans.first { $0.name == name }
                    #expect(span?.error.contains("/nothing") == true, "\(spans)")
                }
            }
        }

        @Test func aTraceThatCannotBeWrittenIsRefusedBeforeAnythingStarts() throws {
            try Scene.play { scene in
                let outcome = try scene.run(
                    bundle: scene.bundle(args: ["true"]), options: ["--trace", "\(scene.directory)/no/trace.json"])
                #expect(outcome.code == 1 && outcome.text.isEmpty)
                #expect(outcome.errorText.contains("no/trace.json"), "\(outcome.errorText)")
            }
        }

        @Test func aCollectorGetsTheSpansOfAnEnginesTrace() throws {
            try Scene.play { scene in
                let collector = try HTTPCollector()
                let settings = "trace.otlp_endpoint = \"http://127.0.0.1:\(collector.port)/otlp/\""
                // What a command is told goes to the server as ttrpc's metadata, as an engine sends it.
                let run = try scene.start(
                    bundle: scene.bundle(args: ["true"]), global: scene.configuration(settings),
                    environment: Lab.environment + ["TRACEPARENT=\(Self.header)"])
                #expect(try run.finish().code == 0)
                collector.end()
                let requests = collector.received
                #expect(requests.allSatisfy { $0.line == "POST /otlp/v1/traces HTTP/1.1" }, "\(requests.map(\.line))")
                #expect(requests.allSatisfy { $0.headers.contains("content-type: application/json") })
                var names: [String: Set<String>] = [:]
                var spans: [JSONValue] = []
                for request in requests {
                    let message = try JSONDecoder().decode(JSONValue.self, from: Data(request.body))
                    for resource in message["resourceSpans"].list {
                        let attributes = resource["resource"]["attributes"].list
                        let service = attributes.first { $0["key"].text == "service.name" }?["value"]["stringValue"]
                            .text
                        let own = resource["scopeSpans"].list.flatMap { $0["spans"].list }
                        names[service ?? "", default: []].formUnion(own.map { $0["name"].text })
                        spans += own
                    }
                }
                #expect(names["martlet-server"]?.isSuperset(of: ["Task.Create", "Task.Start", "launch"]) == true)
                #expect(names[Lab.driver?.machineProcess ?? ""]?.contains("boot") == true, "\(names)")
                #expect(names["martlet-agent (guest)"]?.contains("create the container") == true, "\(names)")
                let trace = Self.header.split(separator: "-")
                #expect(spans.allSatisfy { $0["traceId"].text == trace[1] })
                let tops = spans.filter { $0["parentSpanId"].text == trace[2] }.map { $0["name"].text }
                #expect(Set(tops) == ["Task.Create", "Task.Start"])
                let ids = Set(spans.map { $0["spanId"].text })
                #expect(
                    spans.allSatisfy { $0["parentSpanId"].text == trace[2] || ids.contains($0["parentSpanId"].text) })
                #expect(spans.allSatisfy { ($0["startTimeUnixNano"].int ?? 0) > 1_600_000_000_000_000_000 })
            }
        }

        @Test func aCollectorThatIsAwayCostsNothingButSpans() throws {
            try Scene.play { scene in
                let collector = try HTTPCollector(answering: "503 Service Unavailable")
                let settings = "trace.otlp_endpoint = \"http://127.0.0.1:\(collector.port)\""
                let id = scene.newID()
                let run = try scene.start(
                    bundle: scene.bundle(script: "echo up; read x"), id: id, global: scene.configuration(settings),
                    input: .pipe)
                try run.output?.wait(for: "up\n")
                let end = ContinuousClock.now + .seconds(20)
                var dropped: Double?
                while dropped ?? 0 == 0, ContinuousClock.now < end {
                    usleep(100_000)
                    let text = try Command.run(
                        Lab.martlet, ["--root", scene.root, "metrics", "--format", "openmetrics"])
                    dropped = try OpenMetrics(text).value(
                        "martlet_trace_spans_total", ["pod": id, "result": "dropped"])
                }
                #expect(dropped ?? 0 > 5)
                run.input?.write("\n")
                let outcome = try run.finish()
                #expect(outcome.code == 0 && outcome.errorText.contains("spans are dropped"), "\(outcome.errorText)")
                collector.end()
            }
        }
    }
}
