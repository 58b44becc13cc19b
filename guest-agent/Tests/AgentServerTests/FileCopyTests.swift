import AgentAPI
import Archive
import Glibc
import LinuxSystem
import OCISpec
import TTRPC
import Testing

/// Files out of real containers and into them.
@Suite(.serialized, .enabled(if: AgentUnderTest.obstacle == nil, "\(AgentUnderTest.obstacle ?? "")"))
struct FileCopyTests {
    /// Packs a path of a container.
    private func pack(
        _ path: String, _ container: String, _ agent: AgentUnderTest, followsLink: Bool = false
    ) async throws -> [String: String] {
        let (number, socket) = try agent.stream()
        async let bytes = AgentUnderTest.readAll(socket)
        do {
            _ = try await agent.client.copyFiles(
                .with {
                    ($0.containerID, $0.path, $0.stream) = (container, path, number)
                    $0.pack = .with { $0.followsLink = followsLink }
                }, timeout: .seconds(60))
        } catch {
            #expect(await bytes.isEmpty)
            throw error
        }
        return try files(await bytes)
    }

    /// The files of an archive with their contents; links with where they lead.
    private func files(_ bytes: [UInt8]) throws -> [String: String] {
        let file = SharedDescriptor(try OwnedDescriptor.memory("archive", size: 0))
        try LinuxSystem.writeAll(bytes, to: file.raw, "archive")
        let reader = TarReader(file)
        var files: [String: String] = [:]
        while let entry = try reader.next() {
            var content: [UInt8] = []
            try reader.content { content.append(contentsOf: $0) }
            files[String(decoding: entry.name, as: UTF8.self)] = String(
                decoding: entry.kind == .symbolicLink ? entry.linkTarget : content, as: UTF8.self)
        }
        return files
    }

    private func archive(_ entries: [(TarEntry, String)]) throws -> [UInt8] {
        let file = SharedDescriptor(try OwnedDescriptor.memory("archive", size: 0))
        let writer = TarWriter(file)
        for (entry, text) in entries {
            var entry = entry
            entry.size = Int64(text.utf8.count)
            try writer.add(entry)
            if text.isEmpty { continue }
            _ = try writer.fill { space in
                Array(text.utf8).withUnsafeBytes { space.copyMemory(from: $0) }
                return text.utf8.count
            }
        }
        try writer.finish()
        var bytes = [UInt8](repeating: 0, count: Int(try file.information().st_size))
        _ = try bytes.withUnsafeMutableBytes { try LinuxSystem.readAll(into: $0, from: file.raw, at: 0, "archive") }
        return bytes
    }

    private func unpack(
        _ bytes: [UInt8], to path: String, _ container: String, _ agent: AgentUnderTest,
        rule: AgentUnpackFiles.Rule = .madeDirectory, keepsOwners: Bool = false
    ) async throws {
        let (number, socket) = try agent.stream()
        try startThread("archive") {
            _ = AgentUnderTest.writeAll(bytes, to: socket)
            shutdown(socket.raw, Int32(SHUT_WR))
        }
        _ = try await agent.client.copyFiles(
            .with {
                ($0.containerID, $0.path, $0.stream) = (container, path, number)
                $0.unpack = .with { ($0.rule, $0.keepsOwners) = (rule, keepsOwners) }
            }, timeout: .seconds(60))
    }

    private func code(_ body: () async throws -> Void) async -> TTRPCError.Code? {
        do { try await body() } catch { return (error as? TTRPCError)?.code }
        return nil
    }

    @Test func theContainersMountsAreSeen() async throws {
        try await AgentUnderTest.play { agent in
            try await agent.withSleeper("a") {
                try await unpack(
                    archive([
                        (TarEntry(.file, Array("d/f".utf8), mode: 0o604, uid: 12, gid: 34), "text"),
                        (TarEntry(.symbolicLink, Array("d/l".utf8), linkTarget: Array("/etc".utf8)), ""),
                        (TarEntry(.characterDevice, Array("null".utf8), mode: 0o666, device: (1, 3)), ""),
                    ]), to: "/dev/new/place", "a", agent, keepsOwners: true)
                let seen = try await agent.exec(
                    [
                        "sh", "-c",
                        "cd /dev/new/place; stat -c '%a %u %g' d/f; cat d/f; echo; readlink d/l; stat -c '%F %t %T' null",
                    ],
                    in: "a")
                #expect(seen.output == "604 12 34\ntext\n/etc\ncharacter special file 1 3\n")
                let files = try await pack("/dev/new/place", "a", agent)
                #expect(
                    files == ["place": "", "place/d": "", "place/d/f": "text", "place/d/l": "/etc", "place/null": ""])
                // What the kernel shows is none to copy, but by its name.
                let root = try await pack("/", "a", agent)
                #expect(root["./proc"] == "" && root["./sys"] == "" && root["./etc/passwd"]?.hasPrefix("root:") == true)
                #expect(!root.keys.contains { $0.hasPrefix("./proc/") || $0.hasPrefix("./sys/") })
            }
        }
    }

    @Test func ownersAreThoseOfTheContainersUsers() async throws {
        try await AgentUnderTest.play { agent in
            try await agent.withSleeper(
                "a",
                { spec in
                    spec.linux?.namespaces += [.init(.user)]
                    spec.linux?.uidMappings = [.init(containerID: 0, hostID: 100_000, size: 65536)]
                    spec.linux?.gidMappings = [.init(containerID: 0, hostID: 200_000, size: 65536)]
                }
            ) {
                let bytes = try archive([(TarEntry(.file, Array("f".utf8), uid: 12, gid: 34), "text")])
                try await unpack(bytes, to: "/dev/a", "a", agent)
                try await unpack(bytes, to: "/dev/b", "a", agent, keepsOwners: true)
                let seen = try await agent.exec(["stat", "-c", "%u:%g", "/dev/a/f", "/dev/b/f"], in: "a")
                #expect(seen.output == "0:0\n12:34\n")
                #expect(try await pack("/dev/b", "a", agent) == ["b": "", "b/f": "text"])
            }
        }
    }

    @Test func noPathLeadsOutOfTheContainer() async throws {
        try await AgentUnderTest.play { agent in
            try await agent.withSleeper("a") {
                let script =
                    "cd /tmp; ln -s ../../../../../../../etc up; ln -s /etc/passwd file; ln -s /proc/1/root/etc magic"
                #expect(try await agent.exec(["sh", "-c", script], in: "a").status == 0)
                let own = try await pack("/etc/passwd", "a", agent)["passwd"]
                #expect(own?.contains("www:x:33") == true)
                for path in ["/../../../etc/passwd", "/tmp/up/passwd", "/tmp/up/../etc/passwd"] {
                    #expect(try await pack(path, "a", agent)["passwd"] == own, "\(path)")
                }
                #expect(try await pack("/tmp/file", "a", agent) == ["file": "/etc/passwd"])
                #expect(try await pack("/tmp/file", "a", agent, followsLink: true)["file"] == own)
                for path in ["/proc/self/root/etc/passwd", "/tmp/magic/passwd", "/proc/self/fd/4", "/proc/self/exe/"] {
                    #expect(await code { _ = try await pack(path, "a", agent) } != nil, "\(path)")
                }
                // An archive that goes through a link of its own stays inside.
                try await unpack(
                    archive([
                        (TarEntry(.symbolicLink, Array("l".utf8), linkTarget: Array("../../../../../tmp".utf8)), ""),
                        (TarEntry(.file, Array("l/through".utf8)), "x"),
                    ]), to: "/run", "a", agent)
                #expect(try await agent.exec(["cat", "/tmp/through"], in: "a").output == "x")
                #expect(access("/tmp/through", F_OK) != 0)
                for name in ["../up", "a/../../up"] {
                    let bytes = try archive([(TarEntry(.file, Array(name.utf8)), "x")])
                    #expect(await code { try await unpack(bytes, to: "/tmp", "a", agent) } == .invalidArgument)
                }
            }
        }
    }

    @Test func faultsHaveTheirCodes() async throws {
        try await AgentUnderTest.play { agent in
            try await agent.withSleeper("a") {
                #expect(await code { _ = try await pack("/no/such", "a", agent) } == .notFound)
                #expect(await code { _ = try await pack("/etc/passwd/", "a", agent) } == .invalidArgument)
                #expect(await code { _ = try await pack("etc", "a", agent) } == .invalidArgument)
                #expect(await code { _ = try await pack("/etc", "b", agent) } == .notFound)
                let good = try archive([(TarEntry(.file, Array("f".utf8)), String(repeating: "x", count: 100_000))])
                #expect(await code { try await unpack([], to: "/tmp", "a", agent) } == .invalidArgument)
                #expect(
                    await code { try await unpack(Array(good.dropLast(4000)), to: "/tmp", "a", agent) }
                        == .invalidArgument)
                #expect(await code { try await unpack(good, to: "/no", "a", agent, rule: .directory) } == .notFound)
                // Nothing of it is left.
                #expect(try await agent.exec(["ls", "/tmp"], in: "a").output == "")
                _ = try await agent.client.pauseContainer(.with { $0.containerID = "a" })
                #expect(await code { _ = try await pack("/etc", "a", agent) } == .failedPrecondition)
                _ = try await agent.client.resumeContainer(.with { $0.containerID = "a" })
                try await unpack(good, to: "/tmp/f2", "a", agent, rule: .place)
                #expect(try await agent.exec(["wc", "-c", "/tmp/f2"], in: "a").output == "100000 /tmp/f2\n")
            }
        }
    }

    @Test func aCopyEndsWithItsStreamOrItsContainer() async throws {
        try await AgentUnderTest.play { agent in
            try await agent.create("a", agent.spec(["sleep", "1000"], id: "a"))
            try await agent.start("a")
            #expect(
                try await agent.exec(["dd", "if=/dev/zero", "of=/tmp/big", "bs=1M", "count=32"], in: "a").status == 0)
            // The host takes nothing more.
            do {
                let (number, socket) = try agent.stream()
                shutdown(socket.raw, Int32(SHUT_RDWR))
                _ = socket
                let request = AgentCopyFilesRequest.with {
                    ($0.containerID, $0.path, $0.stream, $0.pack) = ("a", "/tmp/big", number, .init())
                }
                let failed = await code { _ = try await agent.client.copyFiles(request, timeout: .seconds(60)) }
                #expect(failed == .internal)
            }
            // It waits for more, the streams can't be detached, and the container is killed.
            let (number, socket) = try agent.stream()
            let request = AgentCopyFilesRequest.with {
                ($0.containerID, $0.path, $0.stream, $0.unpack) = ("a", "/tmp", number, .init())
            }
            async let copied = code { _ = try await agent.client.copyFiles(request, timeout: .seconds(60)) }
            try await Task.sleep(for: .milliseconds(500))
            #expect(
                await code { _ = try await agent.client.detachStreams(AgentEmpty(), timeout: .seconds(30)) }
                    == .failedPrecondition)
            _ = try await agent.client.signalProcess(
                .with { ($0.containerID, $0.signal) = ("a", UInt32(SIGKILL)) })
            #expect(try await agent.wait("a") == 137)
            #expect(await copied == .internal)
            withExtendedLifetime(socket) {}
            #expect(await code { _ = try await pack("/etc", "a", agent) } == .failedPrecondition)
            try await agent.remove("a")
        }
    }
}
