import AgentAPI
import FoundationEssentials
import OCISpec
import Testing

/// What a process is given, seen from inside it.
@Suite(.serialized, .enabled(if: AgentUnderTest.obstacle == nil, "\(AgentUnderTest.obstacle ?? "")"))
struct ProcessTests {
    /// mkdir fails with "I/O error", chmod of 0777 too, and chroot ends the process.
    private var filter: Linux.Seccomp {
        var filter = Linux.Seccomp(defaultAction: "SCMP_ACT_ALLOW")
        var failing = Linux.Seccomp.Rule(names: ["mkdir", "mkdirat", "no_such_call"], action: "SCMP_ACT_ERRNO")
        failing.errnoRet = 5
        var open = Linux.Seccomp.Rule(names: ["chmod"], action: "SCMP_ACT_ERRNO")
        open.args = [.init(index: 1, value: 0o777, op: "SCMP_CMP_EQ")]
        // A filter from before that call: the program is found without it.
        let older = Linux.Seccomp.Rule(names: ["faccessat2"], action: "SCMP_ACT_ERRNO")
        filter.syscalls = [failing, open, older, .init(names: ["chroot"], action: "SCMP_ACT_KILL_PROCESS")]
        filter.architectures = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
        filter.flags = ["SECCOMP_FILTER_FLAG_LOG"]
        return filter
    }

    @Test(arguments: [true, false]) func theFilterHolds(noNewPrivileges: Bool) async throws {
        // Both cases run at once, and containers of all agents lie in one directory.
        let (first, second) = ("filter-\(noNewPrivileges)", "further-\(noNewPrivileges)")
        try await AgentUnderTest.play { agent in
            let script = """
                mkdir /tmp/x; chmod 777 /tmp; chmod 700 /tmp && echo changed; grep Seccomp: /proc/self/status
                chroot / true; echo $?
                """
            let filter = filter
            let change: @Sendable (inout Spec) -> Void = {
                $0.linux?.seccomp = filter
                $0.process?.noNewPrivileges = noNewPrivileges
            }
            let result = try await agent.run(["sh", "-c", script], id: first, change)
            #expect(result.errors.contains("can't create directory '/tmp/x': Input/output error"), "\(result.errors)")
            #expect(result.errors.contains("chmod: /tmp: Operation not permitted"), "\(result.errors)")
            #expect(result.output == "changed\nSeccomp:\t2\n159\n")
            // The container's filter is also a further process's.
            try await agent.create(second, agent.spec(["sleep", "100"], id: second, change))
            try await agent.start(second)
            _ = try await agent.client.execProcess(
                .with {
                    $0.containerID = second
                    $0.execID = "x"
                    $0.processJson = Data("{\"cwd\":\"/\",\"args\":[\"chroot\",\"/\",\"true\"]}".utf8)
                })
            #expect(try await agent.wait(second, exec: "x") == 159)
            try await agent.remove(second)
        }
    }

    @Test func schedulingAndNamesAreWhatTheyShouldBe() async throws {
        try await AgentUnderTest.play { agent in
            let script = """
                cut -d' ' -f19,41 /proc/1/stat; ionice; uname -m; cat /proc/self/oom_score_adj; cat /proc/sys/kernel/domainname
                """
            let result = try await agent.run(["sh", "-c", script], id: "s") {
                var scheduler = Scheduler(policy: "SCHED_BATCH")
                scheduler.nice = 5
                $0.process?.scheduler = scheduler
                $0.process?.ioPriority = IOPriority(class: "IOPRIO_CLASS_IDLE", priority: 7)
                $0.linux?.personality = .init(domain: "LINUX32")
                $0.process?.oomScoreAdj = 321
                $0.domainname = "example.org"
            }
            let lines = result.output.split(separator: "\n")
            // Nice value and policy (proc(5)): SCHED_BATCH is 3.
            #expect(lines == ["5 3", "idle", "i686", "321", "example.org"], "\(result.errors)")
        }
    }

    @Test func aFurtherProcessIsBoundToProcessors() async throws {
        try await AgentUnderTest.play { agent in
            let out = try agent.stream()
            try await agent.create(
                "a",
                agent.spec(["sleep", "100"], id: "a") {
                    var affinity = CPUAffinity()
                    (affinity.initial, affinity.final) = ("0", "0")
                    $0.process?.execCPUAffinity = affinity
                })
            try await agent.start("a")
            _ = try await agent.client.execProcess(
                .with {
                    $0.containerID = "a"
                    $0.execID = "x"
                    $0.processJson = Data(
                        "{\"cwd\":\"/\",\"args\":[\"grep\",\"Cpus_allowed_list\",\"/proc/self/status\"]}".utf8)
                    $0.streams = .with { $0.stdout = out.number }
                })
            let text = String(decoding: await AgentUnderTest.readAll(out.socket), as: UTF8.self)
            #expect(text == "Cpus_allowed_list:\t0\n")
            #expect(try await agent.wait("a", exec: "x") == 0)
            try await agent.remove("a")
        }
    }

    @Test(arguments: [
        ("{\"policy\":\"SCHED_X\"}", "process.scheduler.policy: \"SCHED_X\" is not a policy of Linux"),
        ("{\"policy\":\"SCHED_OTHER\",\"flags\":[\"F\"]}", "process.scheduler.flags: \"F\" is not a flag of Linux"),
        ("{\"policy\":\"SCHED_FIFO\",\"priority\":100}", "process.scheduler: sched_setattr policy 1: Invalid argument"),
    ])
    func aSchedulerThatCannotBeIsNamed(json: String, message: String) async throws {
        try await AgentUnderTest.play { agent in
            let scheduler = try JSON.decode(Scheduler.self, from: Array(json.utf8), file: "scheduler")
            do {
                try await agent.create("w", agent.spec(["true"], id: "w") { $0.process?.scheduler = scheduler })
                Issue.record("was created")
            } catch {
                #expect("\(error)".contains(message), "\(error)")
            }
        }
    }
}
