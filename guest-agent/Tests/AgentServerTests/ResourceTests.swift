import AgentAPI
import FoundationEssentials
import Glibc
import LinuxSystem
import OCISpec
import TTRPC
import Testing

@testable import AgentServer

/// Limits, freezing and devices, as far as this machine's unified hierarchy has controllers; the rest is shown in guests.
@Suite(.serialized, .enabled(if: AgentUnderTest.obstacle == nil, "\(AgentUnderTest.obstacle ?? "")"))
struct ResourceTests {
    private func failure(_ body: () async throws -> Void) async -> TTRPCError? {
        do { try await body() } catch { return error as? TTRPCError }
        return nil
    }

    @Test func aFrozenContainerStandsAndCanBeKilled() async throws {
        try await AgentUnderTest.play { agent in
            let out = try agent.stream()
            let script = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done"
            try await agent.create("f", agent.spec(["sh", "-c", script], id: "f"), .with { $0.stdout = out.number })
            try await agent.start("f")
            let name = AgentContainerRequest.with { $0.containerID = "f" }
            var bytes = [UInt8](repeating: 0, count: 4096)
            #expect(read(out.socket.raw, &bytes, 4096) > 0)
            _ = try await agent.client.pauseContainer(name)
            let again = await failure { _ = try await agent.client.pauseContainer(name) }
            #expect(again?.code == .failedPrecondition)
            // What was on its way comes; then nothing.
            try await Task.sleep(for: .milliseconds(100))
            _ = recv(out.socket.raw, &bytes, 4096, Int32(MSG_DONTWAIT))
            try await Task.sleep(for: .milliseconds(200))
            #expect(recv(out.socket.raw, &bytes, 4096, Int32(MSG_DONTWAIT)) == -1)
            let exec = await failure {
                _ = try await agent.client.execProcess(
                    .with {
                        $0.containerID = "f"
                        $0.execID = "e"
                        $0.processJson = Data("{\"cwd\":\"/\",\"args\":[\"true\"]}".utf8)
                    })
            }
            #expect(exec?.message.hasSuffix("the container is paused") == true)
            _ = try await agent.client.resumeContainer(name)
            let running = await failure { _ = try await agent.client.resumeContainer(name) }
            #expect(running?.code == .failedPrecondition)
            #expect(read(out.socket.raw, &bytes, 4096) > 0)
            _ = try await agent.client.pauseContainer(name)
            _ = try await agent.client.signalProcess(
                .with {
                    $0.containerID = "f"
                    $0.signal = 9
                })
            #expect(try await agent.wait("f") == 137)
            try await agent.remove("f")
        }
    }

    @Test func devicesAreWhatTheRulesSay() async throws {
        try await AgentUnderTest.play { agent in
            let script = """
                head -c 1 /dev/zero | wc -c; (: </dev/mem) 2>&1; (: </dev/kmsg) 2>&1 && echo read; (: >/dev/kmsg) 2>&1
                ls -l /dev/pipe /dev/own | cut -c1-10
                """
            let result = try await agent.run(["sh", "-c", script], id: "d") {
                $0.linux?.devices = [
                    .init(path: "/dev/mem", type: "c", major: 1, minor: 1),
                    .init(path: "/dev/kmsg", type: "u", major: 1, minor: 11),
                    .init(path: "/dev/pipe", type: "p", fileMode: 0o640),
                    .init(path: "/dev/own", type: "b", major: 7, minor: 0, fileMode: 0o600),
                ]
                var rule = Linux.Resources.DeviceRule(allow: true, access: "r")
                (rule.type, rule.major, rule.minor) = ("c", 1, 11)
                $0.linux?.resources = .init()
                $0.linux?.resources?.devices = [.init(allow: false, access: "rwm"), rule]
            }
            let lines = result.output.split(separator: "\n")
            #expect(
                lines == [
                    "1", "sh: can't open /dev/mem: Operation not permitted", "read",
                    "sh: can't create /dev/kmsg: Operation not permitted", "brw-------", "prw-r-----",
                ], "\(result.errors)")
        }
    }

    @Test func aLimitThatCannotBeIsNamedAndNothingIsLeft() async throws {
        try await AgentUnderTest.play { agent in
            typealias Change = @Sendable (inout Linux.Resources) -> Void
            let unknown: Change = { $0.unified = ["no.such": "1"] }
            let swappiness: Change = {
                $0.memory = .init()
                $0.memory?.swappiness = 1
            }
            let processor: Change = {
                $0.cpu = .init()
                $0.cpu?.cpus = "0,4000"
            }
            for (change, message) in [
                (unknown, "linux.resources.unified.no.such: the guest's cgroups have no no.such"),
                (swappiness, "linux.resources.memory.swappiness: the guest has no swap"),
                (processor, "linux.resources.cpu.cpus: 0,4000: the guest has no processor 4000, only "),
            ] {
                let error = await failure {
                    try await agent.create(
                        "l",
                        agent.spec(["true"], id: "l") {
                            var resources = Linux.Resources()
                            change(&resources)
                            $0.linux?.resources = resources
                        })
                }
                #expect(error?.message.hasPrefix("create container l: \(message)") == true, "\(error?.message ?? "")")
            }
            let again = try await agent.run(["true"], id: "l")
            #expect(again.status == 0)
        }
    }

    @Test func aContainerIsCountedAndChanged() async throws {
        try await AgentUnderTest.play { agent in
            try await agent.create("s", agent.spec(["sleep", "100"], id: "s"))
            try await agent.start("s")
            let counted = try await agent.client.containerStats(.with { $0.containerID = "s" })
            #expect(counted.cpu["usage_usec"] != nil)
            func update(_ json: String) async throws {
                _ = try await agent.client.updateContainer(
                    .with {
                        $0.containerID = "s"
                        $0.resourcesJson = Data(json.utf8)
                    })
            }
            try await update(#"{"unified":{"cgroup.max.descendants":"3"}}"#)
            try await update(#"{"devices":[]}"#)
            let denied = await failure { try await update(#"{"devices":[{"allow":true,"access":"rwm"}]}"#) }
            #expect(denied?.code == .unimplemented)
            let wrong = await failure { try await update(#"{"pids":{"limit":"x"}}"#) }
            #expect(wrong?.code == .invalidArgument)
            try await agent.remove("s")
        }
    }

    @Test func cgroupFilesAreRead() {
        #expect(
            Cgroup.numbers("low 0\nmax 3\noom_kill 2\nodd line here\n") == ["low": 0, "max": 3, "oom_kill": 2])
        #expect(Cgroup.number("max") == .max)
        #expect(Cgroup.number(nil) == nil)
    }
}
