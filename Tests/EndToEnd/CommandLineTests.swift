import FoundationEssentials
import Glibc
import LinuxSystem
import OCISpec
import Testing

extension Containers {
    /// The commands of an OCI runtime, as an engine calls them one after the other.
    @Suite struct CommandLineTests {
        private static let waiting = "trap 'echo term; exit 3' TERM; echo up; while :; do sleep 0.1; done"

        @Test func aContainerLivesByItsCommands() throws {
            try Scene.play { scene in
                let container = try CommandLineContainer(scene)
                let id = container.id
                let pid = try container.create(
                    bundle: scene.bundle(script: Self.waiting) { $0.annotations["io.example"] = "yes" })
                #expect(try container.state().map { "\($0)" } == "(status: \"created\", pid: \(pid))")
                #expect(container.text == "", "nothing runs before start")
                // The container's namespaces and mounts are there before its program is.
                let early = try container.run(
                    "--debug", "exec", id, "/bin/sh", "-c", "hostname; ls -d /proc/1 /bin/busybox; exit 6")
                #expect(early.code == 6 && early.text == "martlet\n/bin/busybox\n/proc/1\n")
                #expect(early.errorText.contains("level=debug msg=\"container \(id): exec of /bin/sh: pid "))
                #expect(try container.state()?.status == "created")
                let full = try container.succeed("state", id)
                for part in [
                    "{\n  \"ociVersion\": \"1.2.0\",\n  \"id\": \"\(id)\",\n  \"pid\": \(pid),",
                    "\"io.example\":\"yes\"", "\"owner\": \"root\"",
                    "/rootfs\"",
                ] { #expect(full.contains(part), "\(full)") }
                // Its process on the host: by its title, in the pod's network namespace.
                let title = try readText("/proc/\(pid)/cmdline").replacing("\0", with: " ")
                #expect(title.contains("container \(id) pod \(id)"))
                #expect(try container.run("create", "--bundle", scene.directory, id).code == 1)

                try container.succeed("start", id)
                container.wait(forText: "up\n")
                let again = try container.run("start", id)
                #expect(again.code == 1 && again.errorText.contains("cannot start an already running container"))
                let running = try container.run("delete", id)
                #expect(running.code == 1 && running.errorText.contains("that is not stopped: running"))
                #expect(try container.succeed("list", "-q") == "\(id)\n")
                let row = try #require(try container.succeed("list").split(separator: "\n").last)
                #expect(row.contains(" \(pid) ") && row.contains("running") && row.hasSuffix("root"), "\(row)")
                #expect(try container.succeed("list", "--format", "json").contains("\"pid\":\(pid)"))
                #expect(try container.succeed("ps", id).contains("trap"))
                #expect(try container.succeed("ps", "--format", "json", id) == "[\(pid)]\n")

                // Each process that serves the guest is in the jail that is planned; the command fails where one is not.
                let jails = try container.succeed("pod", "jail", id).split(separator: "\n")
                let names = jails.dropFirst().map { $0.split(separator: "  ").first.map(String.init) ?? "" }
                let machine = try #require(Lab.driver)
                #expect(
                    Set(names)
                        == Set([machine.machineProcess, "martlet-device container"] + machine.deviceProcesses),
                    "\(jails)")

                try container.succeed("pause", id)
                #expect(try container.state()?.status == "paused")
                let paused = try container.run("exec", id, "true")
                #expect(paused.code == 255 && paused.errorText.contains("cannot exec in a paused container"))
                try container.succeed("resume", id)

                try container.succeed("update", "--memory", "-1", "--pids-limit", "-1", "--cpu-quota", "-1", id)
                try container.succeed("update", "--memory", "64m", "--pids-limit", "50", id)
                let stats = try container.succeed("events", "--stats", id)
                #expect(stats.contains("\"limit\":67108864") && stats.contains("\"type\":\"stats\""), "\(stats)")
                #expect(stats.contains("\"pids\":{\"current\":") && stats.contains("\"limit\":50"), "\(stats)")

                let events = try container.begin(["events", "--interval", "200ms", id])
                try events.output?.wait(for: "\"type\":\"stats\"")
                try container.succeed("kill", id)
                try container.wait(for: "stopped")
                #expect(try events.finish().code == 0)
                #expect(container.text == "up\nterm\n")
                #expect(try container.state()?.pid == 0)
                let dead = try container.run("kill", id, "KILL")
                #expect(dead.code == 1 && dead.errorText.contains("container not running"))
                #expect(try container.run("exec", id, "true").errorText.contains("cannot exec in a stopped container"))
                try container.succeed("delete", id)
                #expect(try container.state() == nil)
                let gone = try container.run("delete", id)
                #expect(gone.code == 1 && gone.errorText.contains("does not exist"))
                try container.succeed("delete", "--force", id)
            }
        }

        @Test func furtherProcessesAreExecuted() throws {
            try Scene.play { scene in
                let container = try CommandLineContainer(scene)
                let id = container.id
                try container.create(bundle: scene.bundle(script: Self.waiting) { $0.process?.env.append("A=own") })
                try container.succeed("start", id)
                container.wait(forText: "up\n")

                let script = "echo $A $B $PWD $(id -u):$(id -g); echo err >&2; exit 9"
                let outcome = try container.run(
                    "exec", "-e", "B=more", "--cwd", "/tmp", "-u", "5:6", id, "/bin/sh", "-c", script)
                #expect(outcome.code == 9 && outcome.text == "own more /tmp 5:6\n" && outcome.errorText == "err\n")
                let echo = try container.begin(["exec", id, "cat"], input: .pipe)
                echo.input?.write("typed\n")
                try echo.output?.wait(for: "typed\n")
                echo.input?.close()
                #expect(try echo.finish().code == 0)
                let signalled = try container.run("exec", id, "/bin/sh", "-c", "kill -SEGV $$")
                #expect(signalled.code == 128 + SIGSEGV)
                // A signal to the command is one to the process.
                let waiting = try container.begin(["exec", id, "/bin/sh", "-c", Self.waiting])
                try waiting.output?.wait(for: "up\n")
                waiting.child.signal(SIGTERM)
                #expect(try waiting.finish().code == 3)

                // As engines do it: the process as a file, its pid in another.
                let process = try scene.write(
                    "process.json",
                    #"{"args": ["/bin/sh", "-c", "echo from a file; sleep 1000"], "cwd": "/", "env": ["PATH=/bin"]}"#)
                let file = "\(scene.directory)/exec.pid"
                let output = SharedDescriptor(
                    try OwnedDescriptor.open("\(scene.directory)/exec.out", O_WRONLY | O_CREAT, mode: 0o644))
                let detached = try container.begin(
                    ["exec", "--process", process, "--detach", "--pid-file", file, id], output: .descriptor(output),
                    errors: .descriptor(output))
                #expect(try detached.finish().code == 0)
                let pid = try #require(Int32(try readText(file)))
                #expect(try container.succeed("ps", "-f", "json", id).contains("\(pid)"))
                #expect(kill(pid, SIGKILL) == 0)
                let end = ContinuousClock.now + .seconds(10) * Lab.patience
                while try container.succeed("ps", id).contains("sleep 1000"), ContinuousClock.now < end {
                    usleep(50_000)
                }
                #expect(try !container.succeed("ps", id).contains("sleep 1000"), "it ends with its process on the host")
                #expect(Leftovers.read("\(scene.directory)/exec.out") == "from a file\n")

                let missing = try container.run("exec", id, "/bin/none")
                #expect(missing.code == 255 && missing.errorText.contains("/bin/none"), "\(missing.errorText)")
                #expect(try container.run("exec", "none", "true").errorText.contains("does not exist"))
                try container.succeed("delete", "-f", id)
            }
        }

        @Test func anExecMayNameACgroupAndWaitForResume() throws {
            try Scene.play { scene in
                let container = try CommandLineContainer(scene)
                let id = container.id
                let bundle = try scene.bundle(script: Self.waiting) { spec in
                    for index in spec.mounts.indices where spec.mounts[index].type == "cgroup" {
                        spec.mounts[index].options.removeAll { $0 == "ro" }
                    }
                }
                try container.create(bundle: bundle)
                try container.succeed("start", id)
                container.wait(forText: "up\n")
                let show = ["cat", "/proc/self/cgroup"]
                try container.succeed("exec", id, "mkdir", "/sys/fs/cgroup/sub")
                #expect(try container.begin(["exec", "--cgroup", "sub", id] + show).finish().text == "0::/sub\n")
                #expect(try container.begin(["exec", "--cgroup", "/", id] + show).finish().text == "0::/\n")
                for (name, reason) in [
                    ("..", ".. is not a sub cgroup path"), ("none", "none/cgroup.procs: No such file"),
                    ("cpu:sub", "version 2"),
                ] {
                    let refused = try container.begin(["exec", "--cgroup", name, id] + show).finish()
                    #expect(refused.code != 0 && refused.errorText.contains(reason), "\(refused)")
                }

                try container.succeed("pause", id)
                let waiting = try container.begin(["exec", "--ignore-paused", id, "echo", "went on"])
                #expect(waiting.child.waitForEnd(timeout: .seconds(1)) == nil)
                try container.succeed("resume", id)
                #expect(try waiting.finish().text == "went on\n")
                try container.succeed("delete", "-f", id)
            }
        }

        @Test func aContainerThatIsKeptHasStopped() throws {
            try Scene.play { scene in
                let container = try CommandLineContainer(scene)
                let id = container.id
                let bundle = try scene.bundle(script: "echo ran")
                #expect(try scene.run(bundle: bundle, id: id, options: ["--keep"]).text == "ran\n")
                #expect(try container.state()?.status == "stopped")
                let again = try scene.run(bundle: bundle, id: id)
                #expect(again.code == 1 && again.errorText.contains("already exists"), "\(again)")
                #expect(try container.state()?.status == "stopped")
                try container.succeed("delete", id)
                #expect(try container.state() == nil)
                #expect(try scene.run(bundle: bundle, id: id).text == "ran\n")
            }
        }

        /// A `poststart` hook that fails ends the container.
        @Test func aHookAfterTheStartMayFailIt() throws {
            try Scene.play { scene in
                let bundle = try scene.bundle(script: Self.waiting) {
                    $0.hooks = Hooks()
                    $0.hooks?.poststart = [Hook(path: "/bin/true"), Hook(path: "/bin/false")]
                }
                let outcome = try scene.run(bundle: bundle)
                #expect(outcome.code == 1, "\(outcome)")
                #expect(outcome.errorText.contains("error running poststart hook #1: /bin/false: "), "\(outcome)")
            }
        }

        /// Whatever is killed, `state` tells the truth and `delete --force` clears all.
        @Test func killedProcessesAreTold() throws {
            try Scene.play { scene in
                for started in [false, true] {
                    for name in ["container", "server", "machine"] {
                        let container = try CommandLineContainer(scene)
                        let id = container.id
                        let pid = try container.create(bundle: scene.bundle(script: Self.waiting))
                        if started { try container.succeed("start", id) }
                        let state = "\(scene.root)/\(id)/state.json"
                        let victim =
                            switch name {
                            case "container": pid
                            case "server": try Leftovers.process("server", in: state)
                            default: try Leftovers.process(#require(Lab.driver).machineProcess, in: state)
                            }
                        #expect(kill(victim, SIGKILL) == 0)
                        try container.wait(for: "stopped")
                        #expect(try container.state()?.pid == 0)
                        try container.succeed("delete", "--force", id)
                        try container.succeed("delete", "--force", id)
                        #expect(try container.state() == nil, "\(name)")
                    }
                }
            }
        }

        @Test func manyAndLargeExecsAreServed() throws {
            try Scene.play { scene in
                let container = try CommandLineContainer(scene)
                let id = container.id
                try container.create(bundle: scene.bundle(script: Self.waiting))
                try container.succeed("start", id)
                container.wait(forText: "up\n")

                let execs = try (0..<100).map { number in
                    try container.begin(["exec", id, "/bin/sh", "-c", "echo \(number); exit \(number)"])
                }
                for (number, exec) in execs.enumerated() {
                    let outcome = try exec.finish(within: .seconds(120) * Lab.patience)
                    #expect(
                        outcome.code == Int32(number) && outcome.text == "\(number)\n",
                        "\(number): \(outcome.code), \(outcome.text), \(outcome.errorText)")
                }

                // An environment of a mebibyte, as a file: a variable may have 128 KiB (execve(2)).
                let variables = (0..<16).map { "V\($0)=\(String(repeating: "v", count: 65_000))" }
                struct Process: Encodable {
                    var args: [String]
                    var cwd = "/"
                    var env: [String]
                }
                let encoder = JSONEncoder()
                let large = try scene.write(
                    "large.json",
                    String(
                        decoding: encoder.encode(
                            Process(args: ["/bin/sh", "-c", "echo ${#V0} ${#V15}"], env: variables)), as: UTF8.self))
                let environment = try container.run("exec", "--process", large, id)
                #expect(environment.code == 0 && environment.text == "65000 65000\n", "\(environment.errorText)")
                let list = (0..<64).map { _ in String(repeating: "a", count: 1023) }
                let arguments = try container.begin(["exec", id, "/bin/sh", "-c", "echo $#", "sh"] + list).finish()
                #expect(arguments.code == 0 && arguments.text == "64\n", "\(arguments.errorText)")
                try container.succeed("delete", "--force", id)
            }
        }

        /// A command that is killed at any moment leaves a container that `delete --force` clears.
        @Test func killedCommandsLeaveNothingBehind() throws {
            try Scene.play { scene in
                let bundle = try scene.bundle(script: Self.waiting)
                for delay in [5, 30, 80, 300, 900, 1500, 2000] {
                    let container = try CommandLineContainer(scene)
                    let create = try container.begin(["create", "--bundle", bundle, container.id])
                    usleep(UInt32(delay) * 1000)
                    create.child.signal(SIGKILL)
                    _ = create.child.waitForEnd(timeout: .seconds(5))
                    // Whatever it is now, there is an answer.
                    _ = try container.state()
                    try container.succeed("delete", "--force", container.id)
                    #expect(try container.state() == nil, "after \(delay) ms")
                }
                for command in ["start", "exec", "kill", "delete"] {
                    let container = try CommandLineContainer(scene)
                    let id = container.id
                    try container.create(bundle: bundle)
                    if command != "start" { try container.succeed("start", id) }
                    if command == "delete" { try container.succeed("kill", id, "KILL") }
                    for delay in [2, 20, 60] {
                        let arguments = command == "exec" ? ["exec", id, "sleep", "100"] : [command, id]
                        let victim = try container.begin(arguments)
                        usleep(UInt32(delay) * 1000)
                        victim.child.signal(SIGKILL)
                        _ = victim.child.waitForEnd(timeout: .seconds(5))
                    }
                    _ = try container.state()
                    try container.succeed("delete", "--force", id)
                    try container.succeed("delete", "--force", id)
                    #expect(try container.state() == nil, "\(command)")
                }
            }
        }

        /// As containerd's shim of runc does when it sees the process's end, which is a moment before the guest's.
        @Test func aContainerWhoseProcessWasKilledIsDeletedAtOnce() throws {
            try Scene.play { scene in
                let container = try CommandLineContainer(scene)
                let pid = try container.create(bundle: scene.bundle(script: Self.waiting))
                try container.succeed("start", container.id)
                container.wait(forText: "up\n")
                kill(pid, SIGKILL)
                while ProcessStatus.isRunning(pid) { usleep(1000) }
                try container.succeed("delete", container.id)
                #expect(try container.state() == nil)
            }
        }

        /// Counted as `Scene` counts: processes, mounts, sockets, cgroups, files.
        @Test func livesLeaveNothing() throws {
            try Scene.play { scene in
                let bundle = try scene.bundle(script: Self.waiting)
                for _ in 0..<(!Lab.everything ? 3 : Lab.driver == .qemu ? 200 : 20) {
                    let container = try CommandLineContainer(scene)
                    let id = container.id
                    try container.create(bundle: bundle)
                    try container.succeed("start", id)
                    #expect(try container.succeed("exec", id, "echo", "hi") == "hi\n")
                    try container.succeed("kill", id, "KILL")
                    try container.wait(for: "stopped")
                    try container.succeed("delete", id)
                }
            }
        }

        @Test func whatIsWrongIsSaidAsOtherRuntimesDo() throws {
            try Scene.play { scene in
                let container = try CommandLineContainer(scene)
                let id = container.id
                let log = "\(scene.directory)/log.json"
                let bundle = try scene.bundle(args: ["/bin/none"])
                let outcome = try container.run(
                    "--log", log, "--log-format", "json", "create", "--bundle", bundle, id)
                #expect(outcome.code == 1 && outcome.errorText.contains("/bin/none"), "\(outcome.errorText)")
                let line = try #require(Leftovers.read(log)?.split(separator: "\n").last)
                #expect(line.contains("\"level\":\"error\"") && line.contains("\"msg\":") && line.contains("/bin/none"))
                #expect(try container.state() == nil)
                for command in ["state", "start", "kill", "delete", "pause", "resume", "ps", "events", "checkpoint"] {
                    let outcome = try container.run(command, "none")
                    #expect(outcome.code == 1 && outcome.errorText.contains("does not exist"), "\(command)")
                }
                let tty = try container.run(
                    "create", "--bundle", scene.bundle(script: "true") { $0.process?.terminal = true }, id)
                #expect(tty.code == 1 && tty.errorText.contains("--console-socket"), "\(tty.errorText)")
                #expect(try container.run("kill", id, "NONE").code == 1)
                let restored = try container.run("restore", "-d", "--image-path", "/none", "--bundle", bundle, id)
                #expect(restored.code == 1, "\(restored.errorText)")
                #expect(restored.errorText.contains("checkpoint /none/checkpoint.json does not exist"))
                for option in ["--lazy-pages", "--pre-dump", "--parent-path=/"] {
                    let outcome = try container.run("checkpoint", option, id)
                    #expect(outcome.code == 1 && outcome.errorText.contains("is not supported"), "\(outcome.errorText)")
                }
            }
        }

        @Test func runLeavesAContainerThatIsDetached() throws {
            try Scene.play { scene in
                let container = try CommandLineContainer(scene)
                let id = container.id
                let output = SharedDescriptor(
                    try OwnedDescriptor.open(container.output, O_WRONLY | O_CREAT, mode: 0o644))
                let run = try container.begin(
                    ["run", "--detach", "--bundle", scene.bundle(script: "echo hi; exit 5"), id],
                    output: .descriptor(output), errors: .descriptor(output))
                #expect(try run.finish().code == 0)
                try container.wait(for: "stopped")
                #expect(container.text == "hi\n")
                try container.succeed("delete", id)
            }
        }
    }
}
