import Glibc
import LinuxSystem
import Testing

extension Containers {
    /// Streams under the conditions in which runtimes of this kind have lost bytes, hung or spun.
    @Suite(.enabled(if: Containerd.obstacle == nil, "\(Containerd.obstacle ?? "")"))
    struct ContainerdStreamTests {
        private static let forever = ["/bin/sleep", "1000"]
        private static let burst = 8 << 20

        /// Starts a container that does nothing; `body` executes processes in it.
        private func play(
            options: [String] = [], _ body: (Containerd, Scene, _ id: String) throws -> Void
        ) throws {
            try Containerd.play { containerd, scene in
                let id = scene.newID()
                try containerd.begin(Containerd.run(["-d"] + options, id, Self.forever)).finishWell()
                try body(containerd, scene, id)
                try containerd.succeed("task", "kill", "--signal", "KILL", id)
                try containerd.wait(for: "STOPPED", of: id)
                _ = try containerd.ctr("task", "rm", id)
                try containerd.succeed("container", "rm", id)
            }
        }

        /// Every byte, then the exit.
        @Test func aBurstBeforeTheExitIsWhole() throws {
            try play { containerd, scene, id in
                let program = ["/bin/sh", "-c", "head -c \(Self.burst) /dev/zero; exit 3"]
                for number in 1...(Lab.everything ? 3 : 1) {
                    let run = try containerd.begin(Containerd.run(["--rm"], scene.newID(), program)).finish()
                    #expect(run.code == 3 && run.output.count == Self.burst, "run \(number): \(run.output.count) bytes")
                    let exec = try containerd.begin(["task", "exec", "--exec-id", "e\(number)", id] + program).finish()
                    #expect(exec.code == 3 && exec.output.count == Self.burst, "exec \(number): \(exec.output.count)")
                }
            }
        }

        @Test func largeInputIsWholeAndOneThatNobodyReadsHoldsNothingUp() throws {
            try play { containerd, _, id in
                let input = String(repeating: "0123456789abcdef", count: (20 << 20) / 16)
                // The client blocks until somebody reads, so it is written from a thread of its own.
                func feed(_ command: Command) throws {
                    try startThread("feed") {
                        command.input?.write(input)
                        command.input?.close()
                    }
                }
                let whole = try containerd.begin(["task", "exec", "--exec-id", "wc", id, "wc", "-c"], input: "")
                try feed(whole)
                let outcome = try whole.finish(within: .seconds(120))
                #expect(outcome.code == 0 && outcome.text == "\(input.utf8.count)\n", "\(outcome.errorText)")
                let deaf = try containerd.begin(
                    ["task", "exec", "--exec-id", "deaf", id, "/bin/sh", "-c", "sleep 2; echo done; exit 4"], input: "")
                try feed(deaf)
                let ended = try deaf.finish(within: .seconds(30))
                #expect(ended.code == 4 && ended.text == "done\n", "\(ended.errorText)")
                #expect(try containerd.ctr("task", "exec", "--exec-id", "after", id, "/bin/true").code == 0)
            }
        }

        /// One whose reader has stopped stalls no other, does not make anything spin, and can be killed.
        @Test func aBlockedStreamStallsNoOther() throws {
            try play { containerd, _, id in
                let stalled = try HostPipe()
                let blocked = try Command(
                    "ctr", ["task", "exec", "--exec-id", "blocked", id, "/bin/cat", "/dev/zero"],
                    output: .descriptor(stalled.write), environment: containerd.environment)
                usleep(1_000_000)
                let start = ContinuousClock.now
                let echo = try containerd.begin(
                    ["task", "exec", "--exec-id", "echo", id, "/bin/cat"], input: "typed\n")
                try echo.output?.wait(for: "typed\n", within: .seconds(3))
                #expect(ContinuousClock.now - start < .seconds(3) * Lab.patience)
                echo.input?.close()
                #expect(try echo.finish().code == 0)

                let names = ["server", "martlet-device vsock", try #require(Lab.driver).machineProcess]
                let processes = names.compactMap { name in
                    (try? containerd.process(name, of: id, within: .zero)).map { (name, $0) }
                }
                let before = processes.map { Leftovers.processorTime($0.1) }
                usleep(3_000_000)
                for ((name, pid), time) in zip(processes, before) {
                    #expect(Leftovers.processorTime(pid) - time < 1, "\(name) is busy")
                }
                try containerd.succeed("task", "kill", "--signal", "KILL", "--exec-id", "blocked", id)
                // ctr itself is stuck in its own output: the exit is told all the same.
                blocked.child.signal(SIGKILL)
                #expect(blocked.child.waitForEnd(timeout: .seconds(10)) != nil)
                #expect(try containerd.ctr("task", "exec", "--exec-id", "after", id, "/bin/true").code == 0)
            }
        }

        /// Only CloseIO ends a process's input; a client that goes away does not.
        @Test func aClientComesBackToTheInput() throws {
            try Containerd.play { containerd, scene in
                let id = scene.newID()
                let script = "while read line; do echo got $line; done; echo end; exit 6"
                let run = try containerd.begin(Containerd.run([], id, ["/bin/sh", "-c", script]), input: "one\n")
                try run.output?.wait(for: "got one\n")
                run.child.signal(SIGKILL)
                _ = run.child.waitForEnd()
                let attached = try containerd.begin(["task", "attach", id], input: "two\n")
                try attached.output?.wait(for: "got two\n")
                #expect(try containerd.state(of: id) == "RUNNING")
                attached.child.signal(SIGKILL)
                try containerd.succeed("task", "kill", "--signal", "KILL", id)
                try containerd.wait(for: "STOPPED", of: id)
                _ = try containerd.ctr("task", "rm", id)
                try containerd.succeed("container", "rm", id)
            }
        }

        @Test func aProcessWithoutStreamsRuns() throws {
            try play(options: ["--null-io"]) { containerd, _, id in
                _ = try containerd.ctr(
                    "task", "exec", "-d", "--exec-id", "quiet", id, "/bin/sh", "-c", "echo out; echo err >&2")
                #expect(try containerd.ctr("task", "exec", "--exec-id", "after", id, "/bin/true").code == 0)
                #expect(try containerd.state(of: id) == "RUNNING")
            }
        }

        /// The container fails within seconds, and the program is gone with what it has started.
        @Test func aLoggingProgramThatIsNeverReadyFailsTheContainer() throws {
            try Containerd.play { containerd, scene in
                let program = try scene.write(
                    "logger", "#!/bin/sh\nsleep 1000 &\necho $! >\(scene.directory)/child\nwait\n")
                chmod(program, 0o755)
                let id = scene.newID()
                let outcome = try containerd.begin(
                    Containerd.run(["-d", "--log-uri", "binary://\(program)"], id, ["/bin/true"])
                ).finish(within: .seconds(30))
                #expect(outcome.code != 0)
                #expect(outcome.errorText.contains("logging program \(program): was not ready"), "\(outcome.errorText)")
                let child = (Leftovers.read("\(scene.directory)/child") ?? "").trimmed
                #expect(!child.isEmpty && access("/proc/\(child)/cmdline", F_OK) != 0 || Self.isZombie(child))
                _ = try containerd.ctr("container", "rm", id)
            }
        }

        private static func isZombie(_ pid: String) -> Bool {
            Leftovers.read("/proc/\(pid)/stat")?.contains(") Z ") ?? true
        }

        /// An exec whose child keeps its output open is over when it has exited itself.
        @Test func anExecEndsBeforeItsChild() throws {
            try play { containerd, _, id in
                let start = ContinuousClock.now
                let exec = try containerd.ctr(
                    "task", "exec", "--exec-id", "one", id, "/bin/sh", "-c", "sleep 60 & echo out; exit 6")
                #expect(exec.code == 6 && exec.text == "out\n", "\(exec.errorText)")
                #expect(ContinuousClock.now - start < .seconds(20) * Lab.patience)
            }
        }
    }
}
