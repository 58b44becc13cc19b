import CLinux
import Glibc
import LinuxSystem
import Testing

@testable import TTRPC

/// containerd's own implementation, as a Go program (Peers/peer.go), at the other end: live where
/// MARTLET_TTRPC_PEER names the program (scripts/ttrpc-peer.sh builds it), and as recorded bytes everywhere.
@Suite(.timeLimit(.minutes(2))) struct GoPeerTests {
    private static let recording = "\(#filePath.dropLast("GoPeerTests.swift".count))Peers/conversation.txt"
    private static let peer = environment("MARTLET_TTRPC_PEER")

    /// One call after another, so that the bytes of both sides are the same each time.
    private static func converse(_ service: ProbeServiceClient) async throws {
        let answer = try await service.echo(ProbeItem(5, "hello"), metadata: ["key": "a", "key": "b"])
        #expect(answer.text == "hello" && answer.metadata == ["key": "a;b;"])
        #expect(try await service.echo(ProbeItem()) == ProbeItem())
        #expect(
            await failure { () throws(TTRPCError) in try await service.fail(ProbeItem(9, "not now")) }
                == TTRPCError(.failedPrecondition, "not now"))
        let missing = await failure { () throws(TTRPCError) -> ProbeItem in
            try await service.client.call("martlet.test.v1.Probe", "None", ProbeItem())
        }
        #expect(missing?.code == .unimplemented)

        var counted: [Int64] = []
        for try await item in try await service.count(ProbeItem(300)).responses { counted.append(item.number) }
        #expect(counted == Array(0..<300))
        for try await item in try await service.count(ProbeItem(0)).responses { Issue.record("got \(item)") }

        let sum = try await service.sum()
        for number in 1...300 { try await sum.send(ProbeItem(Int64(number))) }
        #expect(try await sum.finish().number == 45150)
        #expect(try await service.sum().finish() == ProbeItem())

        let chat = try await service.chat()
        for number in 0..<100 {
            try await chat.send(ProbeItem(Int64(number), "turn"))
            #expect(try await chat.responses.next() == ProbeItem(Int64(number), "turn"))
        }
        try await chat.closeSend()
        #expect(try await chat.responses.next() == nil)
    }

    /// The runs of bytes of the recorded conversation, in order, and which side sent them.
    private static func runs(_ path: String = recording) throws -> [(fromClient: Bool, bytes: [UInt8])] {
        try contents(of: path).split(separator: UInt8(ascii: "\n")).map { line in
            let digits = line.dropFirst(2).map { UInt8(String(UnicodeScalar($0)), radix: 16) ?? 0 }
            let bytes = stride(from: 0, to: digits.count - 1, by: 2).map { digits[$0] << 4 | digits[$0 + 1] }
            return (line.first == UInt8(ascii: "C"), bytes)
        }
    }

    /// Both sides' bytes of a conversation with the Go server: our client sends the same and understands the rest.
    @Test func theRecordedConversationRepeats() async throws {
        let client: TTRPCClient
        let far: SharedDescriptor
        do {
            let pair = try SharedDescriptor.socketPair(SOCK_STREAM)
            far = pair.1
            client = try await TTRPCClient(connected: pair.0)
        }
        let runs = try Self.runs()
        #expect(runs.count > 200)
        async let differing = onThread("replay") { () -> Int? in
            for (index, run) in runs.enumerated() {
                if run.fromClient {
                    var bytes = [UInt8](repeating: 0, count: run.bytes.count)
                    let count = recv(far.raw, &bytes, bytes.count, Int32(MSG_WAITALL))
                    // Leave the client without an answer, so that it ends.
                    if count != bytes.count || bytes != run.bytes {
                        shutdown(far.raw, Int32(SHUT_RDWR))
                        return index
                    }
                } else {
                    send(far.raw, run.bytes, run.bytes.count, Int32(MSG_NOSIGNAL))
                }
            }
            return nil
        }
        do {
            try await Self.converse(ProbeServiceClient(client))
        } catch {
            Issue.record("\(error)")
        }
        client.close()
        let index = try await differing
        #expect(index == nil, "the client's bytes differ in run \(index ?? 0) of Peers/conversation.txt")
    }

    @Test(.enabled(if: peer != nil, "MARTLET_TTRPC_PEER is not set: scripts/ttrpc-peer.sh builds the Go peer"))
    func ourClientTalksToTheGoServer() async throws {
        let directory = try TemporaryDirectory()
        defer { directory.remove() }
        let socket = "\(directory.path)/socket"
        let server = try start(try #require(Self.peer), ["serve", socket, "\(directory.path)/recording"])
        defer { server.signal(SIGKILL) }
        #expect(try await eventually { access(socket, F_OK) == 0 })
        let service = ProbeServiceClient(try await TTRPCClient(unixPath: socket))
        try await Self.converse(service)
        service.client.close()
        let now = "\(directory.path)/recording"
        // The Go program puts the fields of a message in any order, so its bytes are the same in number only.
        func same() -> Bool {
            guard let was = try? Self.runs(), let runs = try? Self.runs(now) else { return false }
            return was.count == runs.count
                && zip(was, runs).allSatisfy { old, new in
                    old.fromClient == new.fromClient
                        && (old.fromClient ? old.bytes == new.bytes : old.bytes.count == new.bytes.count)
                }
        }
        if environment("MARTLET_TTRPC_RECORD") != nil {
            try await Task.sleep(for: .seconds(1))
            try write(String(decoding: contents(of: now), as: UTF8.self), to: Self.recording)
        }
        let isSame = try await eventually(same)
        #expect(isSame, "Peers/conversation.txt is not what was said now; set MARTLET_TTRPC_RECORD=1 to replace it")

        let other = ProbeServiceClient(try await TTRPCClient(unixPath: socket))
        let late = await failure { () throws(TTRPCError) in
            try await other.sleep(ProbeItem(60_000), timeout: .milliseconds(100))
        }
        #expect(late?.code == .deadlineExceeded)
        let lost = Task { await failure { () throws(TTRPCError) in try await other.sleep(ProbeItem(60_000)) } }
        try await Task.sleep(for: .milliseconds(100))
        server.signal(SIGKILL)
        #expect(await lost.value?.code == .unavailable)
    }

    @Test(.enabled(if: peer != nil, "MARTLET_TTRPC_PEER is not set: scripts/ttrpc-peer.sh builds the Go peer"))
    func theGoClientTalksToOurServer() async throws {
        let directory = try TemporaryDirectory()
        defer { directory.remove() }
        let server = TTRPCServer([.probe(Probe())])
        try await server.serve(unixPath: "\(directory.path)/socket")
        let client = try start(try #require(Self.peer), ["call", "\(directory.path)/socket"])
        #expect(await client.end() == .exited(0))
        await server.stop()
    }
}
