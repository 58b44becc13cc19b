import AgentContract
import Glibc
import OCISpec
import TTRPC
import Testing

/// What the processes of a container find: environment, working directory, rights.
@Suite(.serialized, .enabled(if: AgentUnderTest.obstacle == nil, "\(AgentUnderTest.obstacle ?? "")"))
struct EnvironmentTests {
    @Test func theEnvironmentIsExactAndTheLastValueCounts() async throws {
        try await AgentUnderTest.play { agent in
            let environment = [
                "PATH=/bin", "TWICE=first", "JSON={\"a\": [\"b\\n\", 'c']}", "LINES=one\ntwo\n\tthree", "EMPTY=",
                "TWICE=second", "EQUALS==a=b=", "MARK=\u{301}x", "HOME=/first", "HOME=/last",
            ]
            // Each entry ends with a zero byte.
            let result = try await agent.run(["cat", "/proc/self/environ"], id: "env") {
                $0.process?.env = environment
            }
            let expected = environment.filter { $0 != "TWICE=first" && $0 != "HOME=/first" }
            #expect(Array(result.output.utf8) == expected.flatMap { Array($0.utf8) + [0] }, "\(result.output)")
            try await agent.withSleeper("x") {
                let text = try await agent.exec(["/bin/cat", "/proc/self/environ"], in: "x") { $0.env = environment }
                #expect(text.output == result.output)
            }
        }
    }

    @Test func aProcessWithoutHomeHasItsUsers() async throws {
        try await AgentUnderTest.play { agent in
            try await agent.withSleeper("h") {
                for (environment, uid, home) in [
                    ([], 0, "/root"), (["HOME="], 0, "/root"), ([], 33, "/var/www"), ([], 4000, "/"),
                    (["HOME=/x"], 33, "/x"),
                ] as [([String], UInt32, String)] {
                    let text = try await agent.exec(["/bin/sh", "-c", "echo $HOME"], in: "h", id: "e\(uid)") {
                        $0.env = environment
                        $0.user = User(uid: uid)
                    }
                    #expect(text.output == home + "\n")
                }
            }
        }
    }

    /// As runc: with mode 0755 and root's, whoever the process runs as.
    @Test func aWorkingDirectoryThatIsMissingIsMade() async throws {
        try await AgentUnderTest.play { agent in
            let root = agent.directory + "/shares/root"
            #expect(symlink("/target/of", root + "/link") == 0)
            for (index, path) in ["/made/by/start", "/data/inside", "/link/dir"].enumerated() {
                for readOnly in [false, true] {
                    let script = "pwd; stat -c '%u:%g %a' .; id -u"
                    let result = try await agent.run(["sh", "-c", script], id: "w\(index)\(readOnly)") {
                        $0.process?.cwd = "\(path)\(readOnly)"
                        $0.process?.user = User(uid: 1000, gid: 1000, umask: 0o077)
                        $0.root?.readonly = readOnly
                        $0.mounts.append(
                            Mount(destination: "/data", type: "tmpfs", source: "tmpfs", options: ["mode=0755"]))
                    }
                    let reached = path.replacing("/link", with: "/target/of")
                    #expect(
                        result.output == "\(reached)\(readOnly)\n0:0 755\n1000\n", "\(result.output)\(result.errors)")
                }
            }
            // A further process enters what is there.
            try await agent.withSleeper("x") {
                let error = await #expect(throws: TTRPCError.self) {
                    try await agent.exec(["true"], in: "x") { $0.cwd = "/nowhere" }
                }
                let reason = "chdir to cwd (\"/nowhere\") set in config.json failed: no such file or directory"
                #expect(error?.message == "exec e in container x: unable to start container process: \(reason)")
                #expect(error?.code == .unknown)
            }
        }
    }

    /// A descriptor that leads out of the root must be no way there (CVE-2024-21626).
    @Test func noDescriptorIsAWayOut() async throws {
        try await AgentUnderTest.play { agent in
            try await agent.withSleeper("x") {
                for number in 0...12 {
                    let path = "/proc/self/fd/\(number)"
                    let error = await #expect(throws: TTRPCError.self, "\(path)") {
                        try await agent.create("c", agent.spec(["true"], id: "c") { $0.process?.cwd = path })
                    }
                    #expect(error?.message.contains(" cwd ") == true, "\(error?.message ?? "")")
                    let inside = await #expect(throws: TTRPCError.self, "\(path)") {
                        try await agent.exec(["true"], in: "x") { $0.cwd = path }
                    }
                    #expect(inside?.message.contains(" cwd ") == true, "\(inside?.message ?? "")")
                }
            }
        }
    }

    private static let rights = [
        "sh", "-c", "id -u; grep -E 'Cap(Inh|Prm|Eff|Amb)' /proc/self/status | cut -f2 | uniq",
    ]

    @Test func aNumericUserHasNoCapabilities() async throws {
        try await AgentUnderTest.play { agent in
            let all = agent.spec([], id: "x").process?.capabilities
            try await agent.withSleeper("x") {
                let text = try await agent.exec(Self.rights, in: "x") {
                    $0.user = User(uid: 1)
                    $0.capabilities = all
                }
                #expect(text.output == "1\n0000000000000000\n")
            }
            let result = try await agent.run(Self.rights, id: "y") { $0.process?.user = User(uid: 1) }
            #expect(result.output == "1\n0000000000000000\n")
        }
    }

    /// The kernel is asked for its capabilities, not a file that the container may have mounted something over.
    @Test func aForgedLastCapabilityKeepsNone() async throws {
        try await AgentUnderTest.play { agent in
            let forged = agent.directory + "/forged"
            let file = creat(forged, 0o644)
            #expect(write(file, "0\n", 2) == 2)
            close(file)
            let few = Capabilities(bounding: ["CAP_CHOWN"], effective: ["CAP_CHOWN"], permitted: ["CAP_CHOWN"])
            let change: (inout Spec) -> Void = {
                $0.process?.capabilities = few
                $0.mounts.append(
                    Mount(destination: "/proc/sys/kernel/cap_last_cap", source: forged, options: ["bind"]))
            }
            try await agent.withSleeper("x", change) {
                let script = "cat /proc/sys/kernel/cap_last_cap; grep CapBnd /proc/self/status | cut -f2"
                let text = try await agent.exec(["sh", "-c", script], in: "x") { $0.capabilities = few }
                #expect(text.output == "0\n0000000000000001\n")
            }
        }
    }

    @Test func aHostThatSpeaksAnotherVersionIsRefused() async throws {
        try await AgentUnderTest.play { agent in
            for (version, name) in [(UInt32(0), "an unnumbered version"), (999, "version 999")] {
                let error = await #expect(throws: TTRPCError.self) {
                    try await agent.createSandbox("other", version: version)
                }
                #expect(error?.code == .failedPrecondition)
                #expect(
                    error?.message
                        == "create sandbox other: the guest image's agent speaks version \(AgentProtocol.version) of the "
                        + "agent API, this martlet speaks \(name): build the guest anew (make guest)")
            }
        }
    }
}
