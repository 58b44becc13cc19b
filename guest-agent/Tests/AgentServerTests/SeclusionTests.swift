import FoundationEssentials
import Glibc
import OCISpec
import TTRPC
import Testing

@testable import AgentServer

/// What containers see of the agent's own processes, and of each other.
@Suite(
    "Seclusion", .serialized,
    .enabled(if: AgentUnderTest.obstacle == nil, "\(AgentUnderTest.obstacle ?? "")"))
struct SeclusionTests {
    private let share: @Sendable (inout Spec) -> Void = {
        $0.linux?.namespaces.removeAll { $0.kind == .pid }
        $0.linux?.namespaces += [.init(.pid, path: "/run/martlet/sandbox/ns/pid")]
    }

    /// A container may trace and enter the first process of shared process ids: there is nothing in it.
    @Test func theKeeperOfSharedProcessesHasNothing() async throws {
        try await AgentUnderTest.play { agent in
            let script = """
                tr '\\0' ' ' </proc/1/cmdline; echo
                ls -A /proc/1/root/ /proc/1/cwd/; nsenter -t 1 -m -- /bin/busybox ls / && echo entered
                grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs):' /proc/1/status | tr -s '\\t ' ' '
                for file in /proc/1/fd/*; do readlink $file; done; wc -l </proc/1/mountinfo
                """
            let result = try await agent.run(["sh", "-c", script], id: "x", share)
            let nobody = "65534 65534 65534 65534"
            let none = "0000000000000000"
            #expect(
                result.output == """
                    martlet-agent keep-processes 
                    /proc/1/cwd/:

                    /proc/1/root/:
                    Uid: \(nobody)
                    Gid: \(nobody)
                    Groups: 
                    CapInh: \(none)
                    CapPrm: \(none)
                    CapEff: \(none)
                    CapBnd: \(none)
                    CapAmb: \(none)
                    NoNewPrivs: 1
                    /dev/null
                    /dev/null
                    /dev/null
                    1

                    """, "\(result)")
        }
    }

    /// The agent's program lies on a read-only mount: a container that sees it can't put its own in its place (CVE-2019-5736).
    @Test func theAgentsProgramIsReadOnly() async throws {
        try await AgentUnderTest.play { agent in
            let script = "head -c 4 /proc/1/exe | tail -c 3; echo; chmod 777 /proc/1/exe 2>&1 | sed 's/.*: //'"
            let result = try await agent.run(["sh", "-c", script], id: "x", share)
            #expect(result.output == "ELF\nRead-only file system\n", "\(result)")
        }
    }

    /// A process without CAP_SYS_PTRACE may not even look: the keeper is not dumpable.
    @Test func theKeeperIsNotDumpable() async throws {
        try await AgentUnderTest.play { agent in
            let result = try await agent.run(["sh", "-c", "stat -c %u:%g /proc/1/environ; cat /proc/1/maps"], id: "x") {
                share(&$0)
                $0.process?.user = User(uid: 65534, gid: 65534)
                $0.process?.capabilities = Capabilities()
            }
            #expect(result.output == "0:0\n" && result.errors.contains("Permission denied"), "\(result)")
        }
    }

    /// A further process is seen among those of its container only when it is inside: before, its root is the guest's, and
    /// with it all containers' files.
    @Test(arguments: [false, true]) func aFurtherProcessIsSeenInsideOnly(shared: Bool) async throws {
        try await AgentUnderTest.play { agent in
            // The agent's root has the agent's directory, a container's has not.
            let watch = """
                echo watching >/tmp/\(shared)
                while [ ! -e /tmp/stop ]; do
                    for root in /proc/[0-9]*/root; do
                        if [ -e $root\(agent.directory) ]; then echo $root $(tr '\\0' ' ' <${root%root}cmdline); fi
                    done
                done
                echo end
                """
            let output = try agent.stream()
            try await agent.create(
                "x",
                agent.spec(["sh", "-c", watch], id: "x") {
                    if shared { share(&$0) }
                }, .with { $0.stdout = output.number })
            try await agent.start("x")
            for number in 0..<12 {
                let seen = try await agent.exec(["sh", "-c", "echo in"], in: "x", id: "e\(number)")
                #expect(seen.output == "in\n" && seen.status == 0)
            }
            _ = try await agent.exec(["touch", "/tmp/stop"], in: "x", id: "stop")
            let text = String(decoding: await AgentUnderTest.readAll(output.socket), as: UTF8.self)
            #expect(text == "end\n", "\(text)")
            try await agent.remove("x")
        }
    }

    /// Its end is not lost, however soon it comes.
    @Test func aFurtherProcessThatEndsAtOnceIsReaped() async throws {
        try await AgentUnderTest.play { agent in
            try await agent.withSleeper("x") {
                for number in 0..<20 {
                    let status = try await agent.exec(["sh", "-c", "exit \(number)"], in: "x", id: "e\(number)").status
                    #expect(status == UInt32(number))
                }
            }
        }
    }

    /// What is to be hidden below /proc is looked for in the procfs that was mounted there, and a directory of the image that
    /// leads elsewhere gets no procfs (CVE-2019-16884, CVE-2023-27561, CVE-2025-31133).
    @Test func theKernelsFilesAreNotBehindALink() async throws {
        try await AgentUnderTest.play { agent in
            let root = agent.directory + "/shares/root"
            rmdir(root + "/proc")
            mkdir(root + "/elsewhere", 0o755)
            symlink("elsewhere", root + "/proc")
            let error = await #expect(throws: TTRPCError.self) {
                try await agent.create("x", agent.spec(["true"], id: "x"))
            }
            #expect(
                error?.message.contains(
                    "mount proc on /proc: must be mounted on ordinary directory, not on a symbolic link: /proc")
                    == true,
                "\(error?.message ?? "")")
        }
    }

    @Test func whatIsHiddenIsHiddenByTheGuestsOwnNodes() async throws {
        try await AgentUnderTest.play { agent in
            let script = """
                stat -c '%t:%T %F' /proc/cmdline /proc/version; ls -A /proc/irq /data
                sh -c 'echo x >/proc/sys/kernel/hostname' 2>&1 | sed 's/.*: //'; grep -c ' /proc/sys proc ro' /proc/mounts
                """
            let result = try await agent.run(["sh", "-c", script], id: "x") {
                $0.mounts.append(Mount(destination: "/data", type: "tmpfs", source: "tmpfs"))
                $0.linux?.maskedPaths = ["/proc/cmdline", "/proc/version", "/proc/irq", "/data", "/proc/nothing"]
                $0.linux?.readonlyPaths = ["/proc/sys"]
            }
            #expect(
                result.output == """
                    1:3 character special file
                    1:3 character special file
                    /data:

                    /proc/irq:
                    Read-only file system
                    1

                    """, "\(result)")
        }
    }

    /// An image's own /dev, with links where devices should be: nothing is made or opened through them (CVE-2026-88264 and
    /// CVE-2026-88265 of crun).
    @Test(arguments: ["null", "console"]) func anImagesLinksAreNoDevices(name: String) async throws {
        try await AgentUnderTest.play { agent in
            let root = agent.directory + "/shares/root"
            symlink("/proc/sys/kernel/core_pattern", root + "/dev/" + name)
            let output = try agent.stream()
            do {
                try await agent.create(
                    "x",
                    agent.spec(["sh", "-c", "cat /proc/sys/kernel/core_pattern >/dev/null; echo ran"], id: "x") {
                        $0.mounts.removeAll { $0.destination == "/dev" }
                        $0.process?.terminal = true
                        $0.linux?.maskedPaths = []
                    }, .with { $0.stdout = output.number })
                Issue.record("/dev/\(name) was taken")
            } catch {
                let reason =
                    name == "null"
                    ? "mknod /dev/null: File exists"
                    : "must be mounted on ordinary file, not on a symbolic link: /dev/console"
                #expect("\(error)".contains(reason), "\(error)")
            }
        }
    }

    /// The terminal is on /dev/console whatever its name leads to, and is the process's own (CVE-2025-52565).
    @Test func theConsoleIsTheProcesssTerminal() async throws {
        try await AgentUnderTest.play { agent in
            let output = try agent.stream()
            try await agent.create(
                "x",
                agent.spec(["sh", "-c", "stat -c %t:%T /dev/console $(tty); tty"], id: "x") {
                    $0.process?.terminal = true
                }, .with { $0.stdout = output.number })
            try await agent.start("x")
            let text = String(decoding: await AgentUnderTest.readAll(output.socket), as: UTF8.self)
            #expect(text == "88:0\r\n88:0\r\n/dev/pts/0\r\n", "\(text)")
            try await agent.remove("x")
        }
    }
}
