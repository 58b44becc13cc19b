import AgentAPI
import FoundationEssentials
import Glibc
import LinuxSystem
import OCISpec
import TTRPC
import Testing

/// Real containers, made by the agent on this machine.
@Suite(.serialized, .enabled(if: AgentUnderTest.obstacle == nil, "\(AgentUnderTest.obstacle ?? "")"))
struct ContainerTests {
    @Test func aContainerRunsInNamespacesOfItsOwn() async throws {
        try await AgentUnderTest.play { agent in
            let result = try await agent.run(
                [
                    "sh", "-c",
                    "echo $$ $(hostname) $(ls / | tr '\\n' ' '); cat /proc/self/mountinfo | wc -l; ip -o link | wc -l; echo no >&2; exit 3",
                ], id: "a")
            #expect(result.status == 3)
            let lines = result.output.split(separator: "\n")
            #expect(lines.first == "1 box bin dev etc proc run sys tmp")
            #expect(lines.last == "1")
            #expect(result.errors == "no\n")
        }
    }

    @Test func statusesAndSignalsComeThrough() async throws {
        try await AgentUnderTest.play { agent in
            for status in [0, 1, 2, 125, 126, 127, 128, 129, 137, 254, 255] {
                #expect(try await agent.run(["sh", "-c", "exit \(status)"], id: "s\(status)").status == UInt32(status))
            }
            try await agent.create("k", agent.spec(["sleep", "100"], id: "k"))
            try await agent.start("k")
            _ = try await agent.client.signalProcess(
                .with {
                    $0.containerID = "k"
                    $0.signal = 9
                })
            #expect(try await agent.wait("k") == 137)
            await #expect(throws: TTRPCError.self) {
                try await agent.client.signalProcess(
                    .with {
                        $0.containerID = "k"
                        $0.signal = 9
                    })
            }
            try await agent.remove("k")
        }
    }

    @Test func streamsAreWholeAndApart() async throws {
        try await AgentUnderTest.play { agent in
            let input = (0..<(8 << 20)).map { UInt8(truncatingIfNeeded: $0 &* 2_654_435_761 >> 13) }
            let result = try await agent.run(
                ["sh", "-c", "tee /tmp/x | md5sum; md5sum < /tmp/x >&2; wc -c < /tmp/x"], id: "c", input: input)
            #expect(result.status == 0)
            #expect(result.output.hasPrefix(result.errors.prefix(32)))
            #expect(result.output.hasSuffix("8388608\n"))
        }
    }

    @Test func aReaderThatIsGoneEndsTheWriter() async throws {
        try await AgentUnderTest.play { agent in
            let out = try agent.stream()
            try await agent.create(
                "p", agent.spec(["sh", "-c", "yes; exit $?"], id: "p"), .with { $0.stdout = out.number })
            try await agent.start("p")
            var bytes = [UInt8](repeating: 0, count: 4096)
            #expect(read(out.socket.raw, &bytes, 4096) > 0)
            shutdown(out.socket.raw, Int32(SHUT_RDWR))
            #expect(try await agent.wait("p") == 141)
            try await agent.remove("p")
        }
    }

    @Test func aSlowReaderLosesNothing() async throws {
        try await AgentUnderTest.play { agent in
            let out = try agent.stream()
            try await agent.create(
                "w", agent.spec(["sh", "-c", "head -c 3000000 /dev/zero"], id: "w"), .with { $0.stdout = out.number })
            try await agent.start("w")
            try await Task.sleep(for: .seconds(2))
            async let all = AgentUnderTest.readAll(out.socket)
            #expect(try await agent.wait("w") == 0)
            #expect(await all.count == 3_000_000)
            try await agent.remove("w")
        }
    }

    @Test func aBackgroundProcessHoldsNobodyUp() async throws {
        try await AgentUnderTest.play { agent in
            try await agent.create("b", agent.spec(["sleep", "100"], id: "b"))
            try await agent.start("b")
            let out = try agent.stream()
            let process = try JSON.encode(agent.spec(["sh", "-c", "sleep 50 & echo here"], id: "b").process)
            _ = try await agent.client.execProcess(
                .with {
                    $0.containerID = "b"
                    $0.execID = "e"
                    $0.processJson = Data(process)
                    $0.streams = .with { $0.stdout = out.number }
                })
            let clock = ContinuousClock()
            let start = clock.now
            #expect(try await agent.wait("b", exec: "e") == 0)
            #expect(clock.now - start < .seconds(30))
            #expect(await AgentUnderTest.readAll(out.socket) == Array("here\n".utf8))
            let processes = try await agent.client.listProcesses(.with { $0.containerID = "b" }).processes
            #expect(processes.map(\.command).sorted() == ["sleep 100", "sleep 50"])
            #expect(processes.allSatisfy { $0.pid > 1 && $0.userID == 0 })
            try await agent.remove("b")
        }
    }

    @Test func aFurtherProcessIsInTheContainer() async throws {
        try await AgentUnderTest.play { agent in
            try await agent.create("x", agent.spec(["sleep", "100"], id: "x"))
            try await agent.start("x")
            let out = try agent.stream()
            var process = try #require(
                agent.spec(["sh", "-c", "hostname; id -u; id -G; pwd; echo $HOME; cat /proc/1/comm; exit 7"], id: "x")
                    .process)
            process.user.username = "www"
            process.cwd = "/etc"
            let json = try JSON.encode(process)
            _ = try await agent.client.execProcess(
                .with {
                    $0.containerID = "x"
                    $0.execID = "e"
                    $0.processJson = Data(json)
                    $0.streams = .with { $0.stdout = out.number }
                })
            #expect(try await agent.wait("x", exec: "e") == 7)
            let text = String(decoding: await AgentUnderTest.readAll(out.socket), as: UTF8.self)
            #expect(text == "box\n33\n34 77\n/etc\n/var/www\nsleep\n")
            try await agent.remove("x")
        }
    }

    @Test func aTerminalHasItsSize() async throws {
        try await AgentUnderTest.play { agent in
            let (input, out) = (try agent.stream(), try agent.stream())
            let spec = agent.spec(
                ["sh", "-c", "tty; stty size; read x; stty size; echo [$x]; ls -l /dev/console"], id: "t"
            ) {
                $0.process?.terminal = true
                $0.process?.consoleSize = ConsoleSize(height: 33, width: 77)
            }
            try await agent.create(
                "t", spec,
                .with {
                    $0.stdin = input.number
                    $0.stdout = out.number
                })
            try await agent.start("t")
            // Resized only when the first size was printed.
            var text = ""
            var bytes = [UInt8](repeating: 0, count: 4096)
            while !text.contains("33 77\r\n") {
                let count = read(out.socket.raw, &bytes, bytes.count)
                try #require(count > 0)
                text += String(decoding: bytes[..<count], as: UTF8.self)
            }
            _ = try await agent.client.resizePty(
                .with {
                    $0.containerID = "t"
                    $0.width = 100
                    $0.height = 50
                })
            #expect(AgentUnderTest.writeAll(Array("hello\n".utf8), to: input.socket))
            async let rest = AgentUnderTest.readAll(out.socket)
            #expect(try await agent.wait("t") == 0)
            text += String(decoding: await rest, as: UTF8.self)
            let lines = text.split(separator: "\r\n")
            #expect(lines.prefix(2) == ["/dev/pts/0", "33 77"])
            #expect(lines.contains("50 100") && lines.contains("[hello]"))
            try await agent.remove("t")
        }
    }

    @Test func aFurtherProcessHasATerminalOfItsOwn() async throws {
        try await AgentUnderTest.play { agent in
            try await agent.create("y", agent.spec(["sleep", "100"], id: "y"))
            try await agent.start("y")
            let (input, out) = (try agent.stream(), try agent.stream())
            var process = try #require(agent.spec(["sh", "-c", "tty; read x; echo [$x]; sleep 100"], id: "y").process)
            process.terminal = true
            let json = try JSON.encode(process)
            _ = try await agent.client.execProcess(
                .with {
                    $0.containerID = "y"
                    $0.execID = "e"
                    $0.processJson = Data(json)
                    $0.streams = .with {
                        $0.stdin = input.number
                        $0.stdout = out.number
                    }
                })
            #expect(AgentUnderTest.writeAll(Array("hello\n".utf8), to: input.socket))
            var text = ""
            var bytes = [UInt8](repeating: 0, count: 4096)
            while !text.contains("[hello]") {
                let count = read(out.socket.raw, &bytes, bytes.count)
                try #require(count > 0)
                text += String(decoding: bytes[..<count], as: UTF8.self)
            }
            #expect(text.split(separator: "\r\n").contains("/dev/pts/0"), "\(text)")
            // The terminal makes an interrupt of it.
            #expect(AgentUnderTest.writeAll([3], to: input.socket))
            #expect(try await agent.wait("y", exec: "e") == 130)
            try await agent.remove("y")
        }
    }

    @Test func aFailedCreationClosesItsConnections() async throws {
        try await AgentUnderTest.play { agent in
            let out = try agent.stream()
            await #expect(throws: TTRPCError.self) {
                try await agent.create("f", agent.spec(["nothing"], id: "f"), .with { $0.stdout = out.number })
            }
            #expect(await AgentUnderTest.readAll(out.socket).isEmpty)
        }
    }

    @Test func rightsAreWhatTheSpecificationSays() async throws {
        try await AgentUnderTest.play { agent in
            let result = try await agent.run(
                [
                    "sh", "-c",
                    "id -u; id -g; id -G; umask; ulimit -n; grep -E 'Sig(Blk|Ign)|Cap(Eff|Bnd|Amb)|NoNewPrivs' /proc/self/status; exit",
                ], id: "r"
            ) {
                $0.process?.user = User(uid: 5, gid: 6, umask: 0o027, additionalGids: [8, 9])
                $0.process?.rlimits = [Rlimit(type: "RLIMIT_NOFILE", hard: 100, soft: 99)]
                $0.process?.noNewPrivileges = true
                $0.process?.capabilities = Capabilities(
                    bounding: ["CAP_CHOWN", "CAP_KILL"], effective: ["CAP_KILL"], inheritable: ["CAP_KILL"],
                    permitted: ["CAP_KILL"], ambient: ["CAP_KILL", "CAP_CHOWN"])
            }
            let lines = result.output.split(separator: "\n").map { $0.replacing("\t", with: " ") }
            #expect(
                lines == [
                    "5", "6", "6 8 9", "0027", "99", "SigBlk: 0000000000000000", "SigIgn: 0000000000000000",
                    "CapEff: 0000000000000020", "CapBnd: 0000000000000021",
                    "CapAmb: 0000000000000020", "NoNewPrivs: 1",
                ])
        }
    }

    @Test func pathsAreMaskedReadOnlyAndMounted() async throws {
        try await AgentUnderTest.play { agent in
            let script = """
                wc -c < /proc/version; ls /sys/firmware | wc -l; echo x 2>/dev/null > /proc/sys/vm/swappiness || echo ro
                touch /x 2>/dev/null || echo rootro; touch /etc/deep/a/f && cat /etc/deep/a/f; touch /robind/y 2>/dev/null || echo bindro
                echo x > /dev/null && test -c /dev/zero && readlink /dev/fd && readlink /dev/ptmx; grep -c martlet /proc/self/mountinfo
                """
            let result = try await agent.run(["sh", "-c", script], id: "m") {
                $0.root?.readonly = true
                $0.linux?.maskedPaths.append("/proc/version")
                $0.mounts.append(
                    Mount(destination: "/robind", source: agent.directory, options: ["rbind", "ro", "rprivate"]))
                $0.mounts.append(
                    Mount(destination: "/etc/deep/a", type: "tmpfs", source: "tmpfs", options: ["size=1m"]))
            }
            #expect(
                result.output.hasPrefix("0\n0\nro\nrootro\nbindro\n/proc/self/fd\npts/ptmx\n"),
                "\(result.output) \(result.errors)")
        }
    }

    @Test func noLinkLeadsOutOfTheRoot() async throws {
        try await AgentUnderTest.play { agent in
            let root = agent.directory + "/shares/root"
            let name = "martlet-test-\(getpid())"
            #expect(symlink("/../../../../etc", root + "/absolute") == 0)
            #expect(symlink("../../../../etc", root + "/relative") == 0)
            #expect(symlink("/etc/../../../nowhere", root + "/dangling") == 0)
            for link in ["absolute", "relative"] {
                let result = try await agent.run(["sh", "-c", "touch /\(link)/\(name)/f && ls /etc/\(name)"], id: link)
                {
                    $0.mounts.append(Mount(destination: "/\(link)/\(name)", type: "tmpfs", source: "tmpfs"))
                }
                #expect(result.output == "f\n")
                #expect(access("/etc/" + name, F_OK) != 0)
            }
            // Its target is made, inside the root.
            let result = try await agent.run(["sh", "-c", "touch /dangling/f && ls /nowhere"], id: "d") {
                $0.mounts.append(Mount(destination: "/dangling", type: "tmpfs", source: "tmpfs"))
            }
            #expect(result.output == "f\n")
            #expect(access("/nowhere", F_OK) != 0)
        }
    }

    @Test(arguments: [
        ("nothing", "exec: \"nothing\": executable file not found in $PATH"),
        ("/bin/nothing", "exec: \"/bin/nothing\": stat /bin/nothing: no such file or directory"),
        ("/etc", "exec: \"/etc\": is a directory"),
        ("/etc/passwd", "exec: \"/etc/passwd\": permission denied"),
    ])
    func aProgramThatIsNotThereIsNamed(program: String, message: String) async throws {
        try await AgentUnderTest.play { agent in
            let error = await #expect(throws: TTRPCError.self) {
                try await agent.create("n", agent.spec([program], id: "n"))
            }
            #expect(error?.message == "create container n: unable to start container process: \(message)")
            #expect(error?.code == .unknown)
        }
    }

    @Test func whatIsWrongIsNamedAndNothingIsLeft() async throws {
        try await AgentUnderTest.play { agent in
            typealias Change = @Sendable (inout Spec) -> Void
            let noDirectory: Change = { $0.process?.cwd = "/etc/passwd/x" }
            let noUser: Change = { $0.process?.user.username = "nobody" }
            let noParameter: Change = { $0.linux?.sysctl = ["net.no.such": "1"] }
            let noType: Change = { $0.mounts.append(Mount(destination: "/x", type: "nofs", source: "x")) }
            let noTypeAtAll: Change = { $0.mounts.append(Mount(destination: "/x", type: "uds", source: "/a.sock")) }
            let noSource: Change = { $0.mounts.append(Mount(destination: "/x", source: "/no/such", options: ["bind"])) }
            for (change, message) in [
                (
                    noDirectory,
                    "unable to start container process: chdir to cwd (\"/etc/passwd/x\") set in config.json failed: "
                        + "not a directory"
                ),
                (noUser, "user nobody: not in the container's /etc/passwd"),
                (noParameter, "sysctl net/no/such: open /proc/sys/net/no/such: No such file"),
                (noType, "mounts[4].type (/x): nofs: no such file system in the guest"),
                (noTypeAtAll, "mounts[4].type (/x): uds: no such file system in the guest"),
                (noSource, "mount bind /no/such on /x: open /no/such: No such file"),
            ] {
                let error = await #expect(throws: TTRPCError.self) {
                    try await agent.create("e", agent.spec(["true"], id: "e", change))
                }
                #expect(error?.message.hasPrefix("create container e: \(message)") == true, "\(error?.message ?? "")")
            }
            // The id is free again: all of it was taken back.
            let again = try await agent.run(["true"], id: "e")
            #expect(again.status == 0)
        }
    }

    @Test func callsOutOfTurnAreRefused() async throws {
        try await AgentUnderTest.play { agent in
            let client = agent.client
            func code(_ call: () async throws -> Void) async -> TTRPCError.Code? {
                do { try await call() } catch { return (error as? TTRPCError)?.code }
                return nil
            }
            #expect(await code { try await agent.start("no") } == .notFound)
            #expect(await code { _ = try await agent.createSandbox("two") } == .alreadyExists)
            #expect(await code { try await agent.create("../x", agent.spec(["true"], id: "x")) } == .invalidArgument)
            try await agent.create("o", agent.spec(["true"], id: "o"))
            #expect(await code { try await agent.create("o", agent.spec(["true"], id: "o")) } == .alreadyExists)
            try await agent.start("o")
            #expect(await code { try await agent.start("o") } == .failedPrecondition)
            #expect(
                await code {
                    _ = try await client.resizePty(
                        .with {
                            $0.containerID = "o"
                            $0.width = 1
                            $0.height = 1
                        })
                } == .failedPrecondition)
            #expect(
                await code {
                    _ = try await client.signalProcess(
                        .with {
                            $0.containerID = "o"
                            $0.signal = 65
                        })
                } == .invalidArgument)
            _ = try await agent.wait("o")
            #expect(
                await code {
                    _ = try await client.execProcess(
                        .with {
                            $0.containerID = "o"
                            $0.execID = "e"
                            $0.processJson = Data("{\"cwd\":\"/\",\"args\":[\"true\"]}".utf8)
                        })
                } == .failedPrecondition)
            try await agent.remove("o")
            #expect(await code { try await agent.remove("o") } == .notFound)
            #expect(try await client.guestDetails(AgentEmpty()).cpus > 0)
        }
    }
}
