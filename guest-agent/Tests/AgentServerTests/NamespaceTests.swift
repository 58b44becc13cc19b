import AgentAPI
import FoundationEssentials
import OCISpec
import TTRPC
import Testing

/// Namespaces that a container has or shares, what propagates between mounts, and hooks.
@Suite(.serialized, .enabled(if: AgentUnderTest.obstacle == nil, "\(AgentUnderTest.obstacle ?? "")"))
struct NamespaceTests {
    private func useOwnUsers(_ spec: inout Spec) {
        spec.linux?.namespaces += [.init(.user), .init(.cgroup)]
        spec.linux?.uidMappings = [.init(containerID: 0, hostID: 100_000, size: 65536)]
        spec.linux?.gidMappings = [.init(containerID: 0, hostID: 200_000, size: 65536)]
    }

    @Test func usersAreTheContainersOwn() async throws {
        try await AgentUnderTest.play { agent in
            let script = """
                id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '; ls -ln /bin/busybox | awk '{ print $3 }'
                head -c 1 /dev/zero | wc -c; hostname changed && hostname; mount -t tmpfs t /tmp && echo mounted
                touch /dev/shm-file && ls -ln /dev/shm-file | awk '{ print $3, $4 }'; echo out >/dev/stdout
                """
            let result = try await agent.run(["sh", "-c", script], id: "u") { useOwnUsers(&$0) }
            #expect(
                result.output.split(separator: "\n") == [
                    "0", "0", " 0 100000 65536", " 0 200000 65536", "65534", "1", "changed", "mounted", "0 0", "out",
                ], "\(result.errors)")
            // A user of the container, and a further process.
            let out = try agent.stream()
            try await agent.create(
                "v",
                agent.spec(["sleep", "100"], id: "v") {
                    useOwnUsers(&$0)
                    $0.process?.user = User(uid: 7, gid: 8)
                })
            try await agent.start("v")
            _ = try await agent.client.execProcess(
                .with {
                    $0.containerID = "v"
                    $0.execID = "x"
                    $0.processJson = Data(
                        #"{"cwd":"/","args":["sh","-c","id -u; id -g; stat -c %u /proc/1"],"user":{"uid":9,"gid":8}}"#
                            .utf8)
                    $0.streams = .with { $0.stdout = out.number }
                })
            let text = String(decoding: await AgentUnderTest.readAll(out.socket), as: UTF8.self)
            #expect(text == "9\n8\n7\n")
            try await agent.remove("v")
        }
    }

    @Test func idsThatCannotBeMappedAreNamed() async throws {
        try await AgentUnderTest.play { agent in
            do {
                try await agent.create(
                    "m",
                    agent.spec(["true"], id: "m") {
                        useOwnUsers(&$0)
                        $0.linux?.uidMappings = [
                            .init(containerID: 0, hostID: 100_000, size: 9), .init(containerID: 5, hostID: 1, size: 1),
                        ]
                    })
                Issue.record("was created")
            } catch {
                #expect("\(error)".contains("start the container init: write uid_map: Invalid argument"), "\(error)")
            }
            let again = try await agent.run(["true"], id: "m")
            #expect(again.status == 0)
        }
    }

    @Test func clocksAreTheContainersOwn() async throws {
        try await AgentUnderTest.play { agent in
            let result = try await agent.run(
                ["sh", "-c", "cut -d. -f1 /proc/uptime; cat /proc/self/timens_offsets"], id: "t"
            ) {
                $0.linux?.namespaces.append(.init(.time))
                $0.linux?.timeOffsets = ["boottime": .init(secs: 1_000_000_000), "monotonic": .init(secs: 5)]
            }
            let lines = result.output.split(separator: "\n")
            #expect(Int(lines.first ?? "").map { $0 > 1_000_000_000 } == true, "\(result)")
            #expect(result.output.contains("1000000000"), "\(result)")
            // A further process has the same clocks.
            let out = try agent.stream()
            try await agent.create(
                "x",
                agent.spec(["sleep", "100"], id: "x") {
                    $0.linux?.namespaces.append(.init(.time))
                    $0.linux?.timeOffsets = ["boottime": .init(secs: 1_000_000_000)]
                })
            try await agent.start("x")
            _ = try await agent.client.execProcess(
                .with {
                    $0.containerID = "x"
                    $0.execID = "e"
                    $0.processJson = Data(#"{"cwd":"/","args":["cat","/proc/uptime"]}"#.utf8)
                    $0.streams = .with { $0.stdout = out.number }
                })
            let text = String(decoding: await AgentUnderTest.readAll(out.socket), as: UTF8.self)
            #expect(Int(text.prefix { $0 != "." }).map { $0 > 1_000_000_000 } == true, "\(text)")
            try await agent.remove("x")
        }
    }

    @Test func processesAreSharedOnRequest() async throws {
        try await AgentUnderTest.play { agent in
            let share: @Sendable (inout Spec) -> Void = {
                $0.linux?.namespaces.removeAll { [.pid, .ipc].contains($0.kind) }
                $0.linux?.namespaces += [
                    .init(.pid, path: "/run/martlet/sandbox/ns/pid"), .init(.ipc, path: "/run/martlet/sandbox/ns/ipc"),
                ]
            }
            try await agent.create("p", agent.spec(["sleep", "12345"], id: "p", share))
            try await agent.start("p")
            let result = try await agent.run(
                ["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '; kill -9 1; echo $?"], id: "q", share)
            #expect(result.output.contains("sleep 12345 "), "\(result)")
            #expect(result.output.contains("martlet-agent keep-processes "), "\(result)")
            try await agent.remove("p")
            // It is still there for the next.
            let next = try await agent.run(["true"], id: "r", share)
            #expect(next.status == 0)
            // What a container's first process leaves behind ends with it: its output has an end.
            let leaving = try await agent.run(["sh", "-c", "sleep 54321 & exit 4"], id: "s", share)
            #expect(leaving.status == 4)
        }
    }

    @Test func anotherContainersNamespacesAreJoined() async throws {
        try await AgentUnderTest.play { agent in
            try await agent.create(
                "a",
                agent.spec(["sh", "-c", "echo 4711 >/proc/sys/kernel/msgmni; exec sleep 12345"], id: "a") {
                    $0.linux?.readonlyPaths = []
                })
            try await agent.start("a")
            let join: @Sendable (inout Spec) -> Void = { spec in
                spec.hostname = ""
                spec.linux?.namespaces.removeAll { [.pid, .ipc, .uts].contains($0.kind) }
                for kind in [Linux.Namespace.Kind.pid, .ipc, .uts] {
                    var namespace = Linux.Namespace(kind)
                    namespace.join(container: "a")
                    spec.linux?.namespaces.append(namespace)
                }
            }
            let script = "tr '\\0' ' ' </proc/1/cmdline; echo; cat /proc/sys/kernel/msgmni; hostname; echo $$"
            let result = try await agent.run(["sh", "-c", script], id: "b", join)
            let lines = result.output.split(separator: "\n")
            #expect(lines.prefix(3) == ["sleep 12345 ", "4711", "box"], "\(result)")
            #expect(lines.last.map { Int($0) ?? 0 > 1 } == true, "\(result)")
            // A further process is there too.
            let out = try agent.stream()
            try await agent.create("c", agent.spec(["sleep", "54321"], id: "c", join))
            try await agent.start("c")
            _ = try await agent.client.execProcess(
                .with {
                    $0.containerID = "c"
                    $0.execID = "x"
                    $0.processJson = Data(
                        #"{"cwd":"/","args":["sh","-c","tr '\\0' ' ' </proc/1/cmdline; hostname"],"env":["PATH=/bin"]}"#
                            .utf8)
                    $0.streams = .with { $0.stdout = out.number }
                })
            #expect(String(decoding: await AgentUnderTest.readAll(out.socket), as: UTF8.self) == "sleep 12345 box\n")
            // Without its first process a container has no namespaces that one could join.
            try await agent.remove("a")
            do {
                try await agent.create("d", agent.spec(["true"], id: "d", join))
                Issue.record("was created")
            } catch {
                #expect("\(error)".contains("linux.namespaces: container a, which it joins, does not run"), "\(error)")
            }
            try await agent.remove("c")
        }
    }

    @Test func aTemporaryFileSystemBeginsWithWhatLiesBelow() async throws {
        try await AgentUnderTest.play { agent in
            let script = "cat /etc/extra/deep/file; ls -l /etc/extra/link | cut -c1-10; touch /etc/passwd 2>&1"
            let make = try await agent.run(
                [
                    "sh", "-c",
                    "mkdir -p /etc/extra/deep && echo kept >/etc/extra/deep/file && ln -s deep /etc/extra/link",
                ],
                id: "x")
            #expect(make.status == 0)
            let result = try await agent.run(["sh", "-c", script], id: "y") {
                $0.mounts.append(
                    Mount(destination: "/etc", type: "tmpfs", source: "tmpfs", options: ["tmpcopyup", "ro"]))
            }
            #expect(result.output == "kept\nlrwxrwxrwx\ntouch: /etc/passwd: Read-only file system\n", "\(result)")
        }
    }

    @Test func hooksRunInTheContainer() async throws {
        try await AgentUnderTest.play { agent in
            let script = "cat >/tmp/$1; echo $A >>/tmp/$1; id -u >>/tmp/$1"
            let result = try await agent.run(["sh", "-c", "cat /tmp/create /tmp/start"], id: "h") {
                var hooks = Hooks()
                hooks.createContainer = [
                    Hook(path: "/bin/sh", args: ["sh", "-c", script, "x", "create"], env: ["PATH=/bin", "A=1"])
                ]
                hooks.startContainer = [
                    Hook(path: "/bin/sh", args: ["sh", "-c", script, "x", "start"], env: ["PATH=/bin", "A=2"])
                ]
                $0.hooks = hooks
                $0.annotations = ["key": "value"]
                $0.process?.user = User(uid: 33)
                $0.mounts.append(Mount(destination: "/tmp", type: "tmpfs", source: "tmpfs", options: ["mode=1777"]))
            }
            for part in [
                #""id":"h""#, #""status":"creating""#, #""status":"created""#, #""annotations":{"key":"value"}"#,
                #""pid":1"#,
                "}1\n0\n", "}2\n33\n",
            ] {
                #expect(result.output.contains(part), "\(part) in \(result)")
            }
        }
    }

    @Test func aHookThatFailsIsNamed() async throws {
        try await AgentUnderTest.play { agent in
            func failure(_ hook: Hook, start: Bool) async -> String {
                do {
                    try await agent.create(
                        "f",
                        agent.spec(["true"], id: "f") {
                            var hooks = Hooks()
                            if start { hooks.startContainer = [hook] } else { hooks.createContainer = [hook] }
                            $0.hooks = hooks
                        })
                    defer { Task { try? await agent.remove("f") } }
                    try await agent.start("f")
                    return ""
                } catch { return (error as? TTRPCError)?.message ?? "\(error)" }
            }
            let failing = Hook(path: "/bin/sh", args: ["sh", "-c", "echo why >&2; exit 3"])
            let failed = await failure(failing, start: false)
            #expect(
                failed == "create container f: error running createContainer hook #0: /bin/sh: exited with 3: why")
            let slow = Hook(path: "/bin/sleep", args: ["sleep", "100"], timeout: 1)
            let late = await failure(slow, start: false)
            #expect(
                late.hasSuffix(
                    "create container f: error running createContainer hook #0: /bin/sleep: has not ended after 1 s"))
            let missing = await failure(Hook(path: "/bin/none"), start: true)
            #expect(
                missing.hasPrefix("start container f: error running startContainer hook #0: /bin/none: "), "\(missing)")
        }
    }
}
