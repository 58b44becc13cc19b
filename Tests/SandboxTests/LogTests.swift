import FoundationEssentials
import Glibc
import LinuxSystem
import Logging
import Synchronization
import Testing

@testable import Sandbox

/// What log lines say.
@Suite struct LogTests {
    @Test func aLineOfTextEndsWithTheMetadata() {
        let line = LogLine(
            level: .info, message: "container exited",
            metadata: ["pod": "p", "code": "0", "reason": "killed by \"OOM\"", "empty": "", "list": ["a", "b"]],
            time: "t")
        #expect(
            line.text == #"container exited code=0 empty="" list="["a", "b"]" pod=p reason="killed by \"OOM\"""#
                || line.text
                    == #"container exited code=0 empty="" list="[\"a\", \"b\"]" pod=p reason="killed by \"OOM\"""#
        )
        #expect(LogLine(level: .info, message: "m", metadata: [:], time: "t").text == "m")
        #expect(LogLine(level: .info, message: "m", metadata: ["a": "x\ny"], time: "t").text == #"m a="x\ny""#)
    }

    /// What a guest has written in an error or in a name can't look like a line of its own.
    @Test func noLineCanBeForged() throws {
        let forged = "x\n2026-01-01T00:00:00Z error: martlet: all is lost\u{1b}[2J\u{202e}"
        let line = LogLine(level: .info, message: forged, metadata: ["container": "\(forged)"], time: "t")
        let lines = line.text.split(separator: "\n")
        #expect(lines.count == 2 && lines[1].hasPrefix("  2026"), "\(line.text)")
        let scalars = line.text.unicodeScalars
        #expect(!scalars.contains("\u{1b}") && !scalars.contains("\u{202e}"))
        let fields = try JSONDecoder().decode([String: String].self, from: Data(line.json.utf8))
        #expect(fields["msg"]?.contains("\n  2026") == true)
        #expect(fields["container"]?.contains("\n") == false)
        #expect(fields.values.allSatisfy { !$0.unicodeScalars.contains("\u{1b}") })
    }

    @Test func aLineOfJSONHasTheMetadataAsFields() throws {
        let line = LogLine(level: .warning, message: "m", metadata: ["pod": "p", "msg": "no"], time: "t")
        #expect(line.json == #"{"level":"warning","msg":"m","pod":"p","time":"t"}"# + "\n")
    }

    /// A logger whose metadata name a pod writes them with each line, from the level on that it is made for.
    @Test(arguments: LogOutput.Format.allCases) func eachLineNamesThePod(_ format: LogOutput.Format) throws {
        let path = "/tmp/martlet-log-\(getpid())-\(format)"
        defer { unlink(path) }
        var logger = try LogOutput(file: path, format: format, level: .info).logger()
        logger[metadataKey: "pod"] = "p"
        logger.debug("hidden")
        logger.info("one", metadata: ["code": "7"])
        logger.warning("two")
        let lines = try readText(path).split(separator: "\n")
        try #require(lines.count == 2)
        switch format {
        case .text:
            #expect(lines[0].hasSuffix(" level=info msg=one code=7 pod=p"), "\(lines)")
            #expect(lines[1].hasPrefix("time=\"") && lines[1].hasSuffix(" level=warning msg=two pod=p"), "\(lines)")
        case .json:
            let fields = try JSONDecoder().decode([String: String].self, from: Data(lines[0].utf8))
            #expect(fields["pod"] == "p" && fields["code"] == "7" && fields["msg"] == "one")
        }
    }

    /// Keeps the lines that a logger writes.
    final class Lines: Sendable {
        let all = Mutex<[String]>([])

        var logger: Logger {
            var logger = Logger(label: "test") { [self] _ in Handler(lines: self) }
            logger.logLevel = .info
            return logger
        }

        private struct Handler: LogHandler {
            let lines: Lines
            var metadata: Logger.Metadata = [:]
            var logLevel = Logger.Level.info

            init(lines: Lines) { self.lines = lines }

            subscript(metadataKey key: String) -> Logger.Metadata.Value? {
                get { metadata[key] }
                set { metadata[key] = newValue }
            }

            func log(event: LogEvent) {
                let line = LogLine(
                    level: event.level, message: "\(event.message)", metadata: event.metadata ?? [:], time: "")
                lines.all.withLock { $0.append(line.text) }
            }
        }
    }

    @Test func aLifeCycleIsLogged() {
        let lines = Lines()
        let time = Mutex<UInt64>(0)
        let log = LifeCycleLog(lines.logger, clock: { time.withLock { $0 } })
        func note(_ event: PodEvent, after milliseconds: UInt64) {
            time.withLock { $0 += milliseconds * 1_000_000 }
            log.note(event)
        }
        let streams = StreamNames(stdin: "", stdout: "", stderr: "")
        note(.created(container: "c", bundle: "/b", streams: streams, terminal: false, pid: 5), after: 1)
        note(.started(container: "c", pid: 5), after: 20)
        note(.execAdded(container: "c", exec: "e"), after: 1)
        note(.execStarted(container: "c", exec: "e", pid: 5), after: 2)
        note(.exited(container: "c", exec: "e", pid: 5, ExitRecord(status: 3, at: 0)), after: 4)
        note(.paused(container: "c"), after: 1)
        note(.outOfMemory(container: "c"), after: 1)
        note(.exited(container: "c", exec: "", pid: 5, ExitRecord(status: 137, at: 0)), after: 1000)
        note(.deleted(container: "c", pid: 5, ExitRecord(status: 137, at: 0)), after: 7)
        #expect(
            lines.all.withLock { $0 } == [
                "container created bundle=/b container=c pid=5",
                "container started container=c duration_ms=20",
                "process created container=c exec=e",
                "process started container=c duration_ms=2 exec=e",
                "process exited code=3 container=c duration_ms=4 exec=e",
                "container paused container=c",
                "container exited code=137 container=c duration_ms=1009 reason=OOM",
                "container deleted code=137 container=c duration_ms=7",
            ])
    }
}
