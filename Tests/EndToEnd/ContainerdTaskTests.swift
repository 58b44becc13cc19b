import Glibc
import LinuxSystem
import OCISpec
import Testing

extension Containers {
    /// Tasks' lives under the conditions in which runtimes of this kind have lost track of them.
    @Suite(.enabled(if: Containerd.obstacle == nil, "\(Containerd.obstacle ?? "")"))
    struct ContainerdTaskTests {
        private func remove(_ id: String, _ containerd: Containerd) throws {
            _ = try containerd.ctr("task", "kill", "--signal", "KILL", id)
            try containerd.wait(for: "STOPPED", of: id)
            _ = try containerd.ctr("task", "rm", id)
            try containerd.succeed("container", "rm", id)
        }

        /// No new task meets the shim of the one before it, which may be ending still; one that failed neither.
        @Test func anIDIsFreeAtOnce() throws {
            try Containerd.play { containerd, scene in
                let id = scene.newID()
                for number in 1...5 {
                    let run = try containerd.begin(Containerd.run(["--rm"], id, ["/bin/echo", "\(number)"])).finish()
                    #expect(run.code == 0 && run.text == "\(number)\n", "run \(number): \(run.errorText)")
                    if number % 2 == 0 {
                        let missing = try containerd.begin(Containerd.run(["--rm"], id, ["/bin/none"])).finish()
                        #expect(missing.errorText.contains("/bin/none"), "\(missing.errorText)")
                    }
                }
            }
        }

        @Test func execsThatFailAreNamedAndTheirIDsAreFree() throws {
            try Containerd.play { containerd, scene in
                let id = scene.newID()
                try containerd.begin(Containerd.run(["-d"], id, ["/bin/sleep", "1000"])).finishWell()
                for _ in 1...2 {
                    let start = ContinuousClock.now
                    let missing = try containerd.ctr("task", "exec", "--exec-id", "one", id, "/no/such")
                    #expect(missing.code != 0 && missing.errorText.contains("/no/such"), "\(missing.errorText)")
                    #expect(ContinuousClock.now - start < .seconds(10) * Lab.patience)
                }
                #expect(try containerd.ctr("task", "exec", "--exec-id", "one", id, "/bin/true").code == 0)
                // A process that a signal ends.
                let killed = try containerd.ctr("task", "exec", "--exec-id", "two", id, "/bin/sh", "-c", "kill -9 $$")
                #expect(killed.code == 137)
                try remove(id, containerd)
            }
        }

        @Test func thirtyExecsAtOnceAndKills() throws {
            try Containerd.play { containerd, scene in
                let id = scene.newID()
                try containerd.begin(Containerd.run(["-d"], id, ["/bin/sleep", "1000"])).finishWell()
                let execs = try (0..<30).map { number in
                    let script = number % 3 == 0 ? "sleep 1000" : "echo \(number); exit \(number)"
                    return try containerd.begin([
                        "task", "exec", "--exec-id", "e\(number)", id, "/bin/sh", "-c", script,
                    ])
                }
                for number in stride(from: 0, to: 30, by: 3) {
                    // It may not be there yet.
                    let end = ContinuousClock.now + .seconds(60) * Lab.patience
                    let kill = ["task", "kill", "--signal", "KILL", "--exec-id", "e\(number)", id]
                    while try containerd.begin(kill).finish().code != 0, ContinuousClock.now < end { usleep(100_000) }
                }
                for (number, exec) in execs.enumerated() {
                    let outcome = try exec.finish(within: .seconds(60))
                    let (code, text) = number % 3 == 0 ? (137, "") : (number, "\(number)\n")
                    #expect(
                        outcome.code == Int32(code) && outcome.text == text,
                        "exec \(number): \(outcome.code) \(outcome.errorText)")
                }
                #expect(try containerd.ctr("task", "exec", "--exec-id", "after", id, "/bin/true").code == 0)
                try remove(id, containerd)
            }
        }

        /// Containers that name one group are one pod: the first makes it, and it lives as long as one of them. Each that runs
        /// out of memory is told of.
        @Test func aGroupIsOnePod() throws {
            try Containerd.play { containerd, scene in
                let (group, first, second) = (scene.newID(), scene.newID(), scene.newID())
                let events = try containerd.begin(["events"])
                defer { events.child.signal(SIGKILL) }
                let options = ["-d", "--annotation", "io.containerd.runc.v2.group=\(group)"]
                try containerd.begin(Containerd.run(options, first, ["/bin/sleep", "1000"])).finishWell()
                let server = try containerd.process("server", of: group)
                try containerd.begin(Containerd.run(options, second, ["/bin/sleep", "1000"])).finishWell()
                #expect(Leftovers.list("\(containerd.pods)/containerd-default") == [group])
                // The pod outlives the container that made it.
                try remove(first, containerd)
                #expect(try containerd.process("server", of: group) == server)
                for id in [scene.newID(), scene.newID()] {
                    let limit = ["--memory-limit", "\(32 << 20)"]
                    try containerd.begin(Containerd.run(options + limit, id, ["/bin/tail", "/dev/zero"])).finishWell()
                    try containerd.wait(for: "STOPPED", of: id, within: .seconds(30))
                    #expect(try containerd.ctr("task", "rm", id).errorText.contains("non-zero exit code 137"))
                    try events.output?.wait(for: "/tasks/oom {\"container_id\":\"\(id)\"", within: .seconds(10))
                    try containerd.succeed("container", "rm", id)
                }
                #expect(try containerd.state(of: second) == "RUNNING")
                try remove(second, containerd)
            }
        }

        /// One whose pod's shim has died is cleared away, whichever container made it.
        @Test func aGroupsDeadShimIsClearedAway() throws {
            try Containerd.play { containerd, scene in
                let (group, id) = (scene.newID(), scene.newID())
                let options = ["-d", "--annotation", "io.containerd.runc.v2.group=\(group)"]
                try containerd.begin(Containerd.run(options, id, ["/bin/sleep", "1000"])).finishWell()
                kill(try containerd.process("server", of: group), SIGKILL)
                try containerd.wait(for: nil, of: id)
                try containerd.succeed("container", "rm", id)
            }
        }

        /// Lines of the shim name the pod, and the steps of a container's life are there without `debug`.
        @Test func theLogTellsALife() throws {
            try Containerd.play { containerd, scene in
                let id = scene.newID()
                let run = try containerd.begin(Containerd.run(["--rm"], id, ["/bin/sh", "-c", "exit 7"])).finish()
                #expect(run.code == 7)
                let lines = containerd.log.split(separator: "\n").filter { $0.contains("pod=\(id)") }
                for words in [
                    "info: container created ", "info: container started ", "info: container exited code=7 ",
                    "info: container deleted code=7 ",
                ] {
                    let line = lines.first { $0.contains(words) }
                    #expect(line?.contains("container=\(id)") == true, "\(words): \(containerd.log.suffix(3000))")
                    #expect(words.contains("created") || line?.contains("duration_ms=") == true, "\(line ?? "")")
                }
            }
        }

        /// From the end of the process to the event, with a large machine.
        @Test(.enabled(if: Lab.everything)) func anExitIsToldBeforeTheMachineIsGone() throws {
            try Containerd.play(settings: "vm.memory_mib = 8192") { containerd, scene in
                let id = scene.newID()
                let events = try containerd.begin(["events"])
                defer { events.child.signal(SIGKILL) }
                let file = "\(scene.directory)/output"
                let script = "sleep 3; date +%s.%N; exit 3"
                try containerd.begin(
                    Containerd.run(["-d", "--log-uri", "file://\(file)"], id, ["/bin/sh", "-c", script])
                ).finishWell()
                let busy = try Command("/bin/sh", ["-c", "while :; do :; done"])
                defer { busy.child.signal(SIGKILL) }
                while (Leftovers.read(file) ?? "").isEmpty { usleep(2_000) }
                let start = ContinuousClock.now
                try events.output?.wait(for: "/tasks/exit {\"container_id\":\"\(id)\"", within: .seconds(10))
                #expect(ContinuousClock.now - start < .seconds(1) * Lab.patience)
                _ = try containerd.ctr("task", "rm", id)
                try containerd.succeed("container", "rm", id)
            }
        }
    }
}
