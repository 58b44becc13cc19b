import AgentAPI
import AgentContract
import CLinux
import FoundationEssentials
import Glibc
import LinuxSystem
import OCISpec
import TTRPC
import Testing

@testable import AgentServer

/// Targets on the host; the test is the host.
@Suite(.serialized, .enabled(if: AgentUnderTest.obstacle == nil, "\(AgentUnderTest.obstacle ?? "")"))
struct TargetTests {
    private func next(_ requests: SharedDescriptor) throws -> TargetMessage {
        var bytes = [UInt8](repeating: 0, count: TargetMessage.encodedSize)
        let count = recv(requests.raw, &bytes, bytes.count, Int32(MSG_WAITALL))
        return try #require(TargetMessage(bytes.prefix(max(count, 0))))
    }

    private func refuse(_ connection: UInt64, _ requests: SharedDescriptor) {
        var number = connection.littleEndian
        #expect(write(requests.raw, &number, 8) == 8)
    }

    private func text(_ socket: SharedDescriptor) -> String {
        var buffer = [UInt8](repeating: 0, count: 100)
        let count = read(socket.raw, &buffer, buffer.count)
        return String(decoding: buffer.prefix(max(count, 0)), as: UTF8.self)
    }

    /// Asks the agent's server at `path`, as a process of the guest does.
    private func connect(_ agent: AgentUnderTest, _ path: String) throws -> SharedDescriptor {
        SharedDescriptor(try UnixAddress.connect(agent.seen(path)))
    }

    @Test func aContainersSocketIsCarried() async throws {
        try await AgentUnderTest.play { agent in
            let requests = try agent.stream(StreamNumber.targets)
            let path = "/run/martlet/s/mounts/3"
            try await agent.create(
                "s",
                agent.spec(["sh", "-c", "stat -c '%F %a %u %g' /deep/s; sleep 1000"], id: "s") {
                    $0.mounts.append(Mount(destination: "/deep/s", source: path, options: ["bind", "ro"]))
                },
                sockets: [
                    .with {
                        ($0.target, $0.mountPoint, $0.mode, $0.uid, $0.gid) = (7, path, 0o660, 33, 34)
                    }
                ])
            try await agent.start("s")
            let seen = try await agent.exec(["stat", "-c", "%F %a %u %g", "/deep/s"], in: "s")
            #expect(seen.output == "socket 660 33 34\n")

            let client = try connect(agent, path)
            let first = try next(requests)
            #expect(first == TargetMessage(.connect, target: 7, connection: first.connection))
            let stream = try agent.stream(StreamNumber.targetConnection(first.connection))
            #expect(write(client.raw, "to", 2) == 2 && text(stream) == "to")
            #expect(write(stream.raw, "from", 4) == 4 && text(client) == "from")
            shutdown(stream.raw, Int32(SHUT_WR))
            #expect(text(client) == "")
            #expect(write(client.raw, "on", 2) == 2 && text(stream) == "on")
            shutdown(client.raw, Int32(SHUT_RDWR))
            #expect(text(stream) == "")

            // The host does not connect.
            let refused = try connect(agent, path)
            refuse(try next(requests).connection, requests)
            #expect(text(refused) == "")
            // An answer that nobody waits for is closed.
            #expect(text(try agent.stream(StreamNumber.targetConnection(999))) == "")

            // A descriptor is told of, and ends its connection.
            let passing = try connect(agent, path)
            let asked = try next(requests)
            let end = try agent.stream(StreamNumber.targetConnection(asked.connection))
            let byte: [UInt8] = [1]
            let copy = OwnedDescriptor(owning: dup(passing.raw))
            try byte.withUnsafeBytes { try copy.send($0, descriptors: [1]) }
            #expect(text(end) == "" && text(passing) == "")
            let told = try next(requests)
            #expect(told.kind == .passedDescriptor && told.target == 7)

            // Without the host's stream everything is refused; with another it goes on.
            let waiting = try connect(agent, path)
            _ = try next(requests)
            shutdown(requests.raw, Int32(SHUT_RDWR))
            #expect(text(waiting) == "")
            #expect(text(try connect(agent, path)) == "")
            let again = try agent.stream(StreamNumber.targets)
            let other = try await connected(agent, path, again)
            #expect(other.kind == .connect)

            _ = try await agent.client.signalProcess(
                .with {
                    $0.containerID = "s"
                    $0.signal = UInt32(SIGKILL)
                })
            _ = try await agent.wait("s")
            let there = try agent.seen(path)
            #expect(access(there, F_OK) == 0)
            try await agent.remove("s")
            #expect(access(there, F_OK) != 0)
        }
    }

    /// The agent reads the stream's number on a thread of its own.
    private func connected(
        _ agent: AgentUnderTest, _ path: String, _ requests: SharedDescriptor
    ) async throws -> TargetMessage {
        for _ in 0..<1000 {
            let client = try connect(agent, path)
            var items = [requests, client].map { pollfd(fd: $0.raw, events: Int16(POLLIN), revents: 0) }
            #expect(poll(&items, 2, -1) > 0)
            if items[0].revents != 0 { return try next(requests) }
        }
        throw SystemError("connect", path, errno: .timedOut)
    }

    @Test func aSocketOutsideOfTheContainersIsRefused() async throws {
        try await AgentUnderTest.play { agent in
            for path in ["/tmp/s", "/run/martlet/../s", "/run/martlet/x/"] {
                let error = await #expect(throws: TTRPCError.self) {
                    try await agent.create(
                        "s", agent.spec(["true"], id: "s"), sockets: [.with { $0.mountPoint = path }])
                }
                #expect(error?.code == .invalidArgument, "\(path): \(String(describing: error))")
            }
        }
    }

    /// On an address of its own: the agent is in this machine's network here.
    @Test func aResolverAnswersOnBothProtocols() async throws {
        try await AgentUnderTest.play { agent in
            let requests = try agent.stream(StreamNumber.targets)
            let address = try #require(IPAddress("127.77.\(getpid() >> 8 & 0xff).\(getpid() & 0xff)"))
            let server = InternetAddress(address, port: 53)
            func update(_ addresses: [IPAddress]) async throws {
                _ = try await agent.client.updateResolvers(
                    .with {
                        $0.resolvers = addresses.map { address in
                            .with {
                                $0.address = Data(address.bytes)
                                ($0.streamTarget, $0.datagramTarget) = (1, 2)
                            }
                        }
                    })
            }
            try await update([address])
            let client = SharedDescriptor(try server.connected(SOCK_STREAM))
            let request = try next(requests)
            #expect(request.target == 1)
            let stream = try agent.stream(StreamNumber.targetConnection(request.connection))
            #expect(write(client.raw, "query", 5) == 5 && text(stream) == "query")
            #expect(write(stream.raw, "reply", 5) == 5 && text(client) == "reply")

            let asker = SharedDescriptor(try server.connected(SOCK_DGRAM))
            #expect(write(asker.raw, "query", 5) == 5)
            let query = try next(requests)
            #expect(query.target == 2)
            let datagrams = try agent.stream(StreamNumber.targetConnection(query.connection))
            #expect(Array(text(datagrams).utf8) == DatagramFrames.encoded("query".utf8))
            let reply = try #require(DatagramFrames.encoded("reply".utf8))
            // In parts, as a stream may bring them.
            #expect(write(datagrams.raw, reply, 3) == 3)
            usleep(1000)
            #expect(write(datagrams.raw, Array(reply[3...]), reply.count - 3) == reply.count - 3)
            #expect(text(asker) == "reply")
            #expect(text(datagrams) == "")

            // The same again changes nothing; without it the address is free.
            try await update([address])
            #expect(throws: SystemError.self) { try server.bound(SOCK_DGRAM).raw }
            try await update([])
            let free = try await bound(server)
            // What has the address keeps it.
            try await update([address])
            withExtendedLifetime(free) {}
        }
    }

    /// The agent's threads close its sockets in their own time.
    private func bound(_ server: InternetAddress) async throws -> [SharedDescriptor] {
        for _ in 0..<500 {
            if let datagrams = try? SharedDescriptor(server.bound(SOCK_DGRAM)),
                let streams = try? SharedDescriptor(server.bound(SOCK_STREAM))
            {
                return [datagrams, streams]
            }
            usleep(10_000)
        }
        throw SystemError("bind", server.description, errno: .addressInUse)
    }
}
