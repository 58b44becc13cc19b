import FoundationEssentials
import Glibc
import LinuxSystem
import OCISpec
import Testing

extension Containers {
    /// An agent that lies, as one that a container has taken over may: the host decides all the same.
    @Suite(.enabled(if: FaultTests.hasFaultyGuest, "no guest with the faulty agent (make guest-faulty)"))
    struct LyingAgentTests {
        /// Seconds.
        private static let killTimeout = 2 * Lab.patience
        /// What may pass until a container is gone whose agent does nothing.
        private static let limit = Duration.seconds(15) * Lab.patience

        /// A container whose agent tells `lie`, under way, and `martlet` for it.
        private func tell(
            _ lie: String, script: String = "echo up; while :; do sleep 1; done", debug: Bool = false,
            _ body: (Scene, String, Command, _ martlet: ([String]) throws -> Outcome) throws -> Void
        ) throws {
            try Scene.play { scene in
                let bundle = try scene.bundle(script: script) { $0.process?.env.append("io.martlet.fault=\(lie)") }
                let id = scene.newID()
                let configuration = try scene.configuration("agent.kill_timeout_s = \(Self.killTimeout)")
                let run = try scene.start(
                    bundle: bundle, id: id, global: configuration + (debug ? ["--debug"] : []),
                    environment: Lab.environment(guest: FaultTests.faultyGuest))
                try run.output?.wait(for: "up\n")
                try body(scene, id, run) { arguments in
                    try Command(
                        Lab.martlet, ["--root", scene.root] + configuration + arguments, errors: .pipe,
                        environment: Lab.environment
                    ).finish(within: .seconds(60))
                }
            }
        }

        private func expectNoActiveText(_ text: String, sourceLocation: SourceLocation = #_sourceLocation) {
            let active: [Unicode.Scalar] = ["\u{1b}", "\u{9b}", "\u{202e}", "\u{2028}"]
            #expect(
                !text.unicodeScalars.contains { active.contains($0) }, "\(text.debugDescription)",
                sourceLocation: sourceLocation)
            #expect(!text.split(separator: "\n").contains { $0.hasPrefix("martlet: error: all is well") })
        }

        /// SIGKILL is answered and does nothing, the end is never reported, the guest does not power off.
        @Test func aContainerThatIsKilledHasEnded() throws {
            try tell("never-ends") { (scene, id, run, martlet) throws in
                let begin = ContinuousClock.now
                #expect(try martlet(["kill", id, "KILL"]).code == 0)
                let outcome = try run.finish(within: .seconds(60))
                #expect(ContinuousClock.now - begin < Self.limit)
                #expect(outcome.code == 137, "\(outcome.errorText)")
                #expect(outcome.errorText.contains("did not end within"), "\(outcome.errorText)")
            }
        }

        @Test func aDeletionWaitsForNoGuest() throws {
            try tell("never-ends") { (scene, id, run, martlet) throws in
                let begin = ContinuousClock.now
                let outcome = try martlet(["delete", "--force", id])
                #expect(outcome.code == 0, "\(outcome.errorText)")
                #expect(ContinuousClock.now - begin < Self.limit)
                #expect(try run.finish(within: .seconds(60)).code == 137)
            }
        }

        /// The container is said to have ended while it runs, with numbers that there are not, and is removed.
        @Test func anEndThatIsNoneIsTakenOnce() throws {
            try Scene.play { scene in
                let bundle = try scene.bundle(script: "sleep 1000") {
                    $0.process?.env.append("io.martlet.fault=ends-early")
                }
                let run = try scene.start(
                    bundle: bundle, environment: Lab.environment(guest: FaultTests.faultyGuest))
                let outcome = try run.finish(within: .seconds(60))
                #expect((0...255).contains(outcome.code), "\(outcome.errorText)")
                #expect(outcome.errorText.contains("out of memory"), "\(outcome.errorText)")
            }
        }

        @Test func listsAreCutOffAndShownAsText() throws {
            try tell("huge-lists") { (scene, id, run, martlet) throws in
                for arguments in [["ps", id], ["pod", "ps", id], ["events", "--stats", id], ["pod", "logs", id]] {
                    let outcome = try martlet(arguments)
                    #expect(outcome.code == 0, "\(arguments): \(outcome.errorText)")
                    expectNoActiveText(outcome.text)
                    #expect(outcome.text.split(separator: "\n").count < 4200, "\(arguments)")
                }
                #expect(try martlet(["kill", id, "KILL"]).code == 0)
                #expect(try run.finish(within: .seconds(60)).code == 137)
            }
        }

        /// The agent's OOM kills never stop: at most one event a second.
        @Test func eventsHaveAPace() throws {
            try tell("huge-lists") { (scene, id, run, martlet) throws in
                let events = try Command(
                    Lab.martlet, ["--root", scene.root, "events", "--interval", "1h", id],
                    errors: .pipe, environment: Lab.environment)
                usleep(5_000_000)
                #expect(try martlet(["kill", id, "KILL"]).code == 0)
                _ = try run.finish(within: .seconds(60))
                let count = try events.finish(within: .seconds(60)).lines.count { $0.contains(#""type":"oom""#) }
                #expect((2...12).contains(count), "\(count) events in about 5 s")
            }
        }

        /// A removal that is not answered ends with the machine.
        @Test func lateAnswersHoldUpNobody() throws {
            try tell("late") { (scene, id, run, martlet) throws in
                let begin = ContinuousClock.now
                #expect(try martlet(["kill", id, "KILL"]).code == 0)
                #expect(try run.finish(within: .seconds(60)).code == 137)
                #expect(ContinuousClock.now - begin < Self.limit)
            }
        }

        /// An error that claims to be the connection's end is an error, and one line.
        @Test func errorsAreNotBelieved() throws {
            try tell("forges") { (scene, id, run, martlet) throws in
                for arguments in [["ps", id], ["events", "--stats", id]] {
                    let outcome = try martlet(arguments)
                    #expect(outcome.code != 0)
                    #expect(outcome.errorText.contains("it went wrong"), "\(outcome.errorText)")
                    expectNoActiveText(outcome.errorText)
                }
                #expect(try martlet(["state", id]).text.contains("running"), "the pod lives")
                #expect(try martlet(["kill", id, "KILL"]).code == 0)
                #expect(try run.finish(within: .seconds(60)).code == 137)
            }
        }

        /// A console without an end costs the log so many lines a second, and the host little memory.
        @Test func aFloodOnTheConsoleIsCutOff() throws {
            try tell("floods", debug: true) { (scene, id, run, martlet) throws in
                usleep(4_000_000)
                let logs = try martlet(["pod", "logs", id])
                #expect(logs.code == 0 && logs.text.contains("flood"), "\(logs.errorText)")
                #expect(logs.text.split(separator: "\n").count <= 201)
                expectNoActiveText(logs.text)
                #expect(try martlet(["kill", id, "KILL"]).code == 0)
                let outcome = try run.finish(within: .seconds(60))
                #expect(outcome.code == 137, "\(outcome.errorText.suffix(500))")
                let lines = outcome.errorText.split(separator: "\n").count { $0.contains("flood") }
                #expect(lines < 4000, "\(lines) lines")
            }
        }
    }
}
