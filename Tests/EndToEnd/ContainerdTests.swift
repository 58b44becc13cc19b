import Glibc
import LinuxSystem
import Testing

extension Containers {
    /// containerd runs virtual machines and does not notice.
    @Suite(.enabled(if: Containerd.obstacle == nil, "\(Containerd.obstacle ?? "")"))
    struct ContainerdTests {
        private static let forever = ["/bin/sh", "-c", "while :; do sleep 1; done"]

        @Test func aContainerRunsToItsEnd() throws {
            try Containerd.play { containerd, scene in
                let id = scene.newID()
                let outcome = try containerd.begin(
                    Containerd.run(["--rm"], id, ["/bin/sh", "-c", "echo out; echo err >&2; exit 7"])
                ).finish()
                #expect(outcome.code == 7, "\(outcome.errorText)")
                #expect(outcome.text == "out\n")
                #expect(outcome.errorText.contains("err\n"))
                #expect(try containerd.state(of: id) == nil)
            }
        }

        @Test func tasksAreServed() throws {
            try Containerd.play { containerd, scene in
                let id = scene.newID()
                try containerd.begin(Containerd.run(["-d"], id, Self.forever)).finishWell()
                #expect(try containerd.state(of: id) == "RUNNING")

                let exec = try containerd.ctr(
                    "task", "exec", "--exec-id", "one", id, "/bin/sh", "-c", "echo out; echo err >&2; exit 3")
                #expect(exec.code == 3, "\(exec.errorText)")
                #expect(exec.text == "out\n" && exec.errorText == "err\n")
                let echo = try containerd.begin(["task", "exec", "--exec-id", "two", id, "/bin/cat"], input: "typed\n")
                try echo.output?.wait(for: "typed\n")
                echo.input?.close()
                #expect(try echo.finish().code == 0)

                // The shell, and its sleep.
                let processes = try containerd.succeed("task", "ps", id).split(separator: "\n").dropFirst()
                #expect((1...3).contains(processes.count), "\(processes)")

                try containerd.succeed("task", "pause", id)
                #expect(try containerd.state(of: id) == "PAUSED")
                try containerd.succeed("task", "resume", id)
                #expect(try containerd.state(of: id) == "RUNNING")

                try compareMetrics(containerd, id)

                try containerd.succeed("task", "kill", "--signal", "KILL", id)
                try containerd.wait(for: "STOPPED", of: id)
                _ = try containerd.ctr("task", "rm", id)
                try containerd.wait(for: nil, of: id)
                try containerd.succeed("container", "rm", id)
            }
        }

        /// As systemd does it: the container's own cgroup may have no processes then.
        @Test func aProcessFollowsTheFirstOneIntoItsCgroup() throws {
            try Containerd.play { containerd, scene in
                let (id, log) = (scene.newID(), "\(scene.directory)/output")
                let script = """
                    mkdir -p /run/cg && mount -t cgroup2 none /run/cg || exit 1
                    group=/run/cg$(grep '^0::' /proc/self/cgroup | cut -d: -f3); mkdir $group/inner || exit 1
                    echo 1 >$group/inner/cgroup.procs && echo +memory +pids >$group/cgroup.subtree_control || exit 2
                    echo ready; while :; do sleep 1; done
                    """
                try containerd.begin(
                    Containerd.run(
                        ["-d", "--privileged", "--log-uri", "file://\(log)"], id, ["/bin/sh", "-c", script])
                ).finishWell()
                for _ in 0..<300 where Leftovers.read(log) != "ready\n" { usleep(100_000) }
                let exec = try containerd.ctr("task", "exec", "--exec-id", "one", id, "/bin/cat", "/proc/self/cgroup")
                #expect(
                    exec.code == 0 && exec.text.hasSuffix("/inner\n"),
                    "\(exec.text)\(exec.errorText)\(Leftovers.read(log) ?? "")")
                try containerd.succeed("task", "kill", "--signal", "KILL", id)
                try containerd.wait(for: "STOPPED", of: id)
                _ = try containerd.ctr("task", "rm", id)
                try containerd.succeed("container", "rm", id)
            }
        }

        /// Each once, in containerd's order.
        @Test func eventsTellALife() throws {
            try Containerd.play { containerd, scene in
                let id = scene.newID()
                let events = try containerd.begin(["events"])
                defer { events.child.signal(SIGKILL) }
                // One that shows that somebody listens.
                for _ in 0..<100 where events.output?.text.contains("/snapshot") != true {
                    try containerd.succeed("snapshot", "prepare", scene.newID())
                }
                try containerd.begin(Containerd.run(["-d"], id, Self.forever)).finishWell()
                #expect(try containerd.ctr("task", "exec", "--exec-id", "one", id, "/bin/sh", "-c", "exit 3").code == 3)
                try containerd.succeed("task", "pause", id)
                try containerd.succeed("task", "resume", id)
                try containerd.succeed("task", "kill", "--signal", "KILL", id)
                try containerd.wait(for: "STOPPED", of: id)
                _ = try containerd.ctr("task", "rm", id)
                try containerd.succeed("container", "rm", id)
                try events.output?.wait(for: "/containers/delete {\"id\":\"\(id)\"}", within: .seconds(10))
                let lines = (events.output?.text ?? "").split(separator: "\n").filter { $0.contains(id) }
                let topics = lines.compactMap { line in line.split(separator: " ").first { $0.hasPrefix("/tasks/") } }
                #expect(
                    topics == [
                        "/tasks/create", "/tasks/start", "/tasks/exec-added", "/tasks/exec-started", "/tasks/exit",
                        "/tasks/paused", "/tasks/resumed", "/tasks/exit", "/tasks/delete",
                    ])
            }
        }

        /// What containerd reads is what the guest counts: within a tenth, or 256 KiB as things move on.
        private func compareMetrics(_ containerd: Containerd, _ id: String) throws {
            let files = try containerd.succeed(
                "task", "exec", "--exec-id", "files", id, "/bin/sh", "-c",
                "mkdir -p /run/cg && mount -t cgroup2 none /run/cg 2>/dev/null; cat /run/cg/memory.current 2>/dev/null || echo"
            )
            let metrics = try containerd.succeed("task", "metrics", id)
            let values = Dictionary(
                metrics.split(separator: "\n").compactMap { line -> (String, Double)? in
                    let words = line.split(separator: " ")
                    guard words.count == 2, let number = Double(words[1]) else { return nil }
                    return (String(words[0]), number)
                }, uniquingKeysWith: { $1 })
            let usage = try #require(values["memory.usage"], "\(metrics)")
            #expect(usage > 100_000 && usage < 100_000_000, "\(metrics)")
            #expect((values["cpu.usage_usec"] ?? 0) > 0, "\(metrics)")
            #expect((1...4).contains(values["pids.current"] ?? 0), "\(metrics)")
            if let own = Double(files.split(separator: "\n").first ?? "") {
                #expect(abs(own - usage) < max(own / 10, 262_144), "\(own) in the guest, \(usage) in containerd")
            }
        }

        @Test func containersOutliveContainerd() throws {
            try Containerd.play { containerd, scene in
                let (id, log) = (scene.newID(), "\(scene.directory)/output")
                let script = "for i in 1 2 3 4 5 6; do echo line $i; sleep 1; done; exit 9"
                try containerd.begin(
                    Containerd.run(["-d", "--log-uri", "file://\(log)"], id, ["/bin/sh", "-c", script])
                ).finishWell()
                try containerd.kill()
                // Its end comes while nobody is there to be told.
                usleep(useconds_t(8_000_000 * Lab.patience))
                try containerd.start()
                #expect(try containerd.state(of: id) == "STOPPED")
                #expect(Leftovers.read(log) == (1...6).map { "line \($0)\n" }.joined())
                #expect(try containerd.ctr("task", "rm", id).errorText.contains("non-zero exit code 9"))
                try containerd.succeed("container", "rm", id)
            }
        }

        /// Whatever dies, containerd learns the truth and can clear up.
        @Test(arguments: ["server", "machine", "files"]) func aDeadProcessEndsTheTask(_ victim: String) throws {
            try Containerd.play { containerd, scene in
                let id = scene.newID()
                try containerd.begin(Containerd.run(["-d"], id, Self.forever)).finishWell()
                let name =
                    switch victim {
                    case "machine": try #require(Lab.driver).machineProcess
                    case "files": "martlet-device files"
                    default: victim
                    }
                Glibc.kill(try containerd.process(name, of: id), SIGKILL)
                // A dead shim's task is gone: containerd's own word for it.
                try containerd.wait(for: victim == "server" ? nil : "STOPPED", of: id)
                if victim != "server" { _ = try containerd.ctr("task", "rm", id) }
                try containerd.wait(for: nil, of: id)
                try containerd.succeed("container", "rm", id)
            }
        }

        @Test func whatIsWrongIsNamed() throws {
            try Containerd.play { containerd, scene in
                let id = scene.newID()
                let outcome = try containerd.begin(Containerd.run(["--rm"], id, ["/bin/none"])).finish()
                #expect(outcome.code != 0)
                #expect(
                    outcome.errorText.contains("exec: \"/bin/none\": stat /bin/none: no such file or directory"),
                    "\(outcome.errorText)"
                )
            }
        }

        /// `ctr` with a checkpoint: the container goes on in another task.
        @Test func aTaskGoesOnFromACheckpoint() throws {
            try Containerd.play { containerd, scene in
                let (id, other) = (scene.newID(), scene.newID())
                let script = "n=0; while :; do n=$((n+1)); echo $n >/count; sleep 0.1; done"
                try containerd.begin(Containerd.run(["-d"], id, ["/bin/sh", "-c", script])).finishWell()
                let count = { (id: String) in
                    let exec = try containerd.succeed("task", "exec", "--exec-id", "e", id, "cat", "/count")
                    return Int(exec.trimmingPrefix { $0.isWhitespace }.prefix { $0.isNumber }) ?? 0
                }
                let end = ContinuousClock.now + .seconds(10) * Lab.patience
                while try count(id) < 10, ContinuousClock.now < end { usleep(100_000) }
                let image = "localhost/checkpoint:\(id)"
                let taken = try containerd.ctr("container", "checkpoint", "--rw", "--image", "--task", id, image)
                defer { _ = try? containerd.ctr("image", "rm", image) }
                if Lab.driver == .kvm {
                    #expect(taken.code == 0, "\(taken.errorText)")
                    let saved = try count(id)
                    #expect(saved >= 10)
                    _ = try containerd.ctr("task", "rm", "-f", id)
                    try containerd.succeed("container", "restore", "--rw", "--live", other, image)
                    try containerd.wait(for: "RUNNING", of: other)
                    let first = try count(other)
                    #expect(first >= 10 && first < saved + 200, "\(first), \(saved)")
                    usleep(500_000)
                    #expect(try count(other) > first)
                    _ = try containerd.ctr("task", "rm", "-f", other)
                    try containerd.succeed("container", "rm", other)
                } else {
                    #expect(taken.errorText.contains("a checkpoint with qemu"), "\(taken.errorText)")
                    _ = try containerd.ctr("task", "rm", "-f", id)
                }
                try containerd.succeed("container", "rm", id)
            }
        }

        @Test(.enabled(if: Lab.everything)) func twentyAtOnce() throws {
            try Containerd.play { containerd, scene in
                let runs = try (1...20).map { number in
                    try containerd.begin(
                        Containerd.run(["--rm"], scene.newID(), ["/bin/sh", "-c", "echo \(number); exit \(number)"]))
                }
                for (index, run) in runs.enumerated() {
                    let outcome = try run.finish(within: .seconds(180))
                    #expect(
                        outcome.code == Int32(index + 1) && outcome.text == "\(index + 1)\n", "\(outcome.errorText)")
                }
            }
        }
    }
}
