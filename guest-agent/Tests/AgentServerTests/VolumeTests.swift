import AgentAPI
import FoundationEssentials
import Glibc
import LinuxSystem
import OCISpec
import TTRPC
import Testing

/// Volumes in the guest's memory, in real containers.
@Suite(.serialized, .enabled(if: AgentUnderTest.obstacle == nil, "\(AgentUnderTest.obstacle ?? "")"))
struct VolumeTests {
    private static func directory(_ path: String, mode: UInt32 = 0o755) -> AgentVolumeEntry {
        .with { ($0.path, $0.mode) = (path, S_IFDIR | mode) }
    }

    private static func file(_ path: String, _ text: String, mode: UInt32 = 0o644, gid: UInt32 = 0) -> AgentVolumeEntry
    {
        .with { ($0.path, $0.mode, $0.gid, $0.data) = (path, S_IFREG | mode, gid, Data(text.utf8)) }
    }

    private static func link(_ path: String, _ target: String) -> AgentVolumeEntry {
        .with { ($0.path, $0.mode, $0.data) = (path, S_IFLNK | 0o777, Data(target.utf8)) }
    }

    private func make(
        _ agent: AgentUnderTest, _ name: String, size: UInt64 = 0, mode: UInt32 = 0o777, gid: UInt32 = 0
    ) async throws {
        _ = try await agent.client.makeVolume(
            .with { ($0.name, $0.sizeBytes, $0.mode, $0.gid) = (name, size, mode, gid) })
    }

    private func write(
        _ agent: AgentUnderTest, _ name: String, _ entries: [AgentVolumeEntry], publish: String = ""
    ) async throws {
        _ = try await agent.client.writeVolume(
            .with { ($0.name, $0.entries, $0.publish) = (name, entries, publish) })
    }

    /// Makes a container with volumes on the paths.
    private func create(
        _ agent: AgentUnderTest, _ id: String, _ script: String, volumes: [(name: String, path: String, at: String)],
        options: [String] = ["rbind"], _ streams: AgentStreams = .init()
    ) async throws {
        let spec = agent.spec(["sh", "-c", script], id: id) { spec in
            for (index, volume) in volumes.enumerated() {
                spec.mounts.append(
                    Mount(
                        destination: volume.at, type: "bind", source: "/run/martlet/\(id)/mounts/\(index)",
                        options: options))
            }
        }
        let storages: [AgentStorage] = volumes.enumerated().map { index, volume in
            .with {
                ($0.driver, $0.source, $0.path) = ("volume", volume.name, volume.path)
                $0.mountPoint = "/run/martlet/\(id)/mounts/\(index)"
            }
        }
        try await agent.create(id, spec, streams, storages: storages)
    }

    private func run(
        _ agent: AgentUnderTest, _ id: String, _ script: String, volumes: [(name: String, path: String, at: String)],
        options: [String] = ["rbind"]
    ) async throws -> String {
        let out = try agent.stream()
        try await create(
            agent, id, "exec 2>&1; " + script, volumes: volumes, options: options, .with { $0.stdout = out.number })
        async let output = AgentUnderTest.readAll(out.socket)
        try await agent.start(id)
        _ = try await agent.wait(id)
        let text = String(decoding: await output, as: UTF8.self)
        try await agent.remove(id)
        return text
    }

    @Test func aVolumeHasItsSizeAndIsSharedAndOutlivesContainers() async throws {
        try await AgentUnderTest.play { agent in
            try await make(agent, "v", size: 1 << 20, mode: 0o2770, gid: 77)
            let first = try await run(
                agent, "a",
                "stat -c '%a %g' /v; dd if=/dev/zero of=/v/big bs=64k count=32 2>&1 | grep -o 'No space.*'; wc -c </v/big",
                volumes: [("v", "", "/v")])
            #expect(first == "2770 77\nNo space left on device\n1048576\n")
            // Made again: nothing happens.
            try await make(agent, "v", size: 1 << 10)
            let second = try await run(
                agent, "b", "wc -c </v/big; echo x >/v/x; echo $?", volumes: [("v", "", "/v")],
                options: ["rbind", "ro"])
            #expect(
                second.hasPrefix("1048576\n") && second.contains("Read-only file system") && second.hasSuffix("1\n"))
        }
    }

    @Test func contentIsWrittenAndWhatIsThereStays() async throws {
        try await AgentUnderTest.play { agent in
            try await make(agent, "v")
            try await write(
                agent, "v", [Self.directory("sub", mode: 0o2750), Self.file("sub/f", "text", mode: 0o640, gid: 5)])
            try await write(
                agent, "v",
                [
                    Self.directory("sub", mode: 0o777),
                    .with {
                        $0.path = "sub/f"
                        $0.mode = S_IFREG | 0o600
                        $0.data = Data(" more".utf8)
                        $0.offset = 4
                    },
                ])
            let output = try await run(
                agent, "a", "stat -c '%a %g' /v/sub /v/sub/f; cat /part/f",
                volumes: [("v", "", "/v"), ("v", "sub", "/part")])
            #expect(output == "2750 0\n600 0\ntext more")
        }
    }

    /// A container can put links into a volume: nobody follows them out of it.
    @Test func linksOfContainersLeadNowhere() async throws {
        try await AgentUnderTest.play { agent in
            try await make(agent, "v")
            _ = try await run(
                agent, "a", "mkdir /v/etc; echo own >/v/etc/passwd; ln -s /etc /v/out; ln -s ../../../../../etc /v/up",
                volumes: [("v", "", "/v")])
            for (id, path) in [("b", "out"), ("c", "up")] {
                #expect(try await run(agent, id, "cat /p/passwd", volumes: [("v", path, "/p")]) == "own\n")
            }
            await #expect(throws: TTRPCError.self) { try await write(agent, "v", [Self.file("out/made", "x")]) }
            for path in ["../x", "/x", "a/../../x", "a//b", "."] {
                await #expect(throws: TTRPCError.self) { try await write(agent, "v", [Self.file(path, "x")]) }
            }
            for name in ["", "..", "a/b", "/a"] {
                await #expect(throws: TTRPCError.self) { try await make(agent, name) }
            }
        }
    }

    /// As on a host: the new directory, the rename of `..data`, new links, and the old directory's end.
    @Test func anUpdateIsWhatKubeletDoes() async throws {
        try await AgentUnderTest.play { agent in
            try await make(agent, "v")
            try await write(
                agent, "v",
                [Self.directory("..1"), Self.file("..1/a", "one", mode: 0o400), Self.file("..1/b", "gone")])
            try await write(
                agent, "v", [Self.link("a", "..data/a"), Self.link("b", "..data/b")], publish: "..1")
            let out = try agent.stream()
            let script = """
                cat /v/a /v/b; ls -A /v | tr '\\n' ' '; stat -c %a /v/..data/a
                while [ -e /v/..1 ]; do sleep 0.05; done
                cat /v/a /v/c; ls -A /v | tr '\\n' ' '
                """
            try await create(agent, "a", script, volumes: [("v", "", "/v")], .with { $0.stdout = out.number })
            async let output = AgentUnderTest.readAll(out.socket)
            try await agent.start("a")
            // By the time it has read the first content.
            try await Task.sleep(for: .seconds(1))
            let events = try Events(agent.seen(agent.directory + "/volumes/v"))
            try await write(
                agent, "v", [Self.directory("..2"), Self.file("..2/a", "two"), Self.file("..2/c", "new")])
            try await write(
                agent, "v", [Self.link("a", "..data/a"), Self.link("c", "..data/c")], publish: "..2")
            _ = try await agent.wait("a")
            #expect(String(decoding: await output, as: UTF8.self) == "onegone..1 ..data a b 400\ntwonew..2 ..data a c ")
            try await agent.remove("a")
            #expect(
                events.read() == [
                    "made ..2", "made ..data_tmp", "from ..data_tmp", "to ..data", "made c", "gone b", "gone ..1",
                ])
            // Again: nothing is touched.
            try await write(
                agent, "v", [Self.link("a", "..data/a"), Self.link("c", "..data/c")], publish: "..2")
            #expect(events.read() == [])
        }
    }
}

/// What happens in a directory, as inotify(7) tells it.
private struct Events {
    private let descriptor: SharedDescriptor

    init(_ path: String) throws {
        descriptor = SharedDescriptor(
            OwnedDescriptor(owning: try check("inotify_init", "", inotify_init1(Int32(IN_CLOEXEC | IN_NONBLOCK)))))
        let mask = UInt32(IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO)
        try check("inotify_add_watch", path, inotify_add_watch(descriptor.raw, path, mask))
    }

    /// Those so far.
    func read() -> [String] {
        var bytes = [UInt8](repeating: 0, count: 65536)
        let count = max(0, Glibc.read(descriptor.raw, &bytes, bytes.count))
        var events: [String] = []
        var offset = 0
        while offset < count {
            let (mask, length) = bytes.withUnsafeBytes {
                (
                    $0.loadUnaligned(fromByteOffset: offset + 4, as: UInt32.self),
                    Int($0.loadUnaligned(fromByteOffset: offset + 12, as: UInt32.self))
                )
            }
            let name = String(decoding: bytes[(offset + 16)..<(offset + 16 + length)].prefix { $0 != 0 }, as: UTF8.self)
            let words = [(IN_CREATE, "made"), (IN_DELETE, "gone"), (IN_MOVED_FROM, "from"), (IN_MOVED_TO, "to")]
            events += words.filter { mask & UInt32($0.0) != 0 }.map { "\($0.1) \(name)" }
            offset += 16 + length
        }
        return events
    }
}
