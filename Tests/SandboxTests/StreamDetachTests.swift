import CLinux
import Glibc
import LinuxSystem
import Testing

@testable import Sandbox

/// Relays that lose their connections and get others. This plays the agent: it ends its side of each connection, and reads to the end of
/// the host's.
@Suite struct StreamDetachTests {
    private static let bytes = (0..<(2 << 20)).map { UInt8(truncatingIfNeeded: $0 &* 2_654_435_761 >> 13) }

    private static func writeAll(_ bytes: some Collection<UInt8>, to descriptor: SharedDescriptor) {
        var rest = Array(bytes)[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.write(descriptor.raw, $0.baseAddress, $0.count) }
            if count < 0, errno != EINTR {
                Issue.record("write: \(errno)")
                return
            }
            rest = rest.dropFirst(max(count, 0))
        }
    }

    private static func readAll(_ descriptor: SharedDescriptor) async throws -> [UInt8] {
        try await onThread("read") {
            var all: [UInt8] = []
            var buffer = [UInt8](repeating: 0, count: 50_000)
            while true {
                let count = Glibc.read(descriptor.raw, &buffer, buffer.count)
                if count <= 0 { return all }
                all += buffer.prefix(count)
            }
        }
    }

    private static func read(_ count: Int, _ descriptor: SharedDescriptor) async throws -> [UInt8] {
        try await onThread("read") {
            var all: [UInt8] = []
            while all.count < count {
                var buffer = [UInt8](repeating: 0, count: count - all.count)
                let length = Glibc.read(descriptor.raw, &buffer, buffer.count)
                if length <= 0 { return all }
                all += buffer.prefix(length)
            }
            return all
        }
    }

    private static func endSending(_ socket: SharedDescriptor) { shutdown(socket.raw, Int32(SHUT_WR)) }

    // MARK: One relay

    @Test(arguments: [false, true]) func anOutputGoesOn(isSocket: Bool) async throws {
        let pair = try isSocket ? SharedDescriptor.socketPair(SOCK_STREAM) : SharedDescriptor.pipe()
        let (host, guest) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let relay = try StreamRelay(name: "stdout", engine: pair.1, guest: host, direction: .fromGuest)
        async let output = Self.read(Self.bytes.count, pair.0)
        var agent = guest
        for part in 0..<8 {
            let (peer, chunk) = (agent, Self.bytes[part << 18..<(part + 1) << 18])
            try await onThread("agent") { Self.writeAll(chunk, to: peer) }
            try relay.detach()
            Self.endSending(peer)
            await relay.detached()
            #expect(relay.hasLetGo && relay.isAttachable)
            let next = try SharedDescriptor.socketPair(SOCK_STREAM)
            relay.attach(next.0)
            #expect(!relay.hasLetGo && !relay.isAttachable)
            agent = next.1
        }
        // It was not asked to detach: the output has ended.
        Self.endSending(agent)
        await relay.finish()
        #expect(relay.hasLetGo && !relay.isAttachable)
        #expect(try await output == Self.bytes)
    }

    @Test(arguments: [false, true]) func anInputGoesOn(isSocket: Bool) async throws {
        let (source, engine) = try isSocket ? SharedDescriptor.socketPair(SOCK_STREAM) : SharedDescriptor.pipe()
        let (host, guest) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let relay = try StreamRelay(name: "stdin", engine: source, guest: host, direction: .toGuest)
        let bytes = Self.bytes
        try startThread("engine") {
            Self.writeAll(bytes, to: engine)
            // The last descriptor of the pipe.
            #expect(throws: Never.self) { try Self.replace(engine) }
        }
        var agent = guest
        var input: [UInt8] = []
        for _ in 0..<6 {
            // While it still sends; what it has read it sends before it lets go.
            input += try await Self.read(200_000, agent)
            try relay.detach()
            Self.endSending(agent)
            input += try await Self.readAll(agent)
            await relay.detached()
            let next = try SharedDescriptor.socketPair(SOCK_STREAM)
            relay.attach(next.0)
            agent = next.1
        }
        input += try await Self.readAll(agent)
        await relay.finish()
        #expect(input == bytes)
    }

    @Test func anInputDoesNotEndBeforeTheGuestLetsGo() async throws {
        let (source, engine) = try SharedDescriptor.pipe()
        let (host, guest) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let relay = try StreamRelay(name: "stdin", engine: source, guest: host, direction: .toGuest)
        try relay.detach()
        // Not read any more: it stays for the next connection.
        Self.writeAll([1], to: engine)
        #expect(!relay.hasLetGo)
        Self.endSending(guest)
        await relay.detached()
        let before = try await Self.readAll(guest)
        let next = try SharedDescriptor.socketPair(SOCK_STREAM)
        relay.attach(next.0)
        #expect(before + (try await Self.read(1 - before.count, next.1)) == [1])
        relay.cancel()
        await relay.finish()
    }

    @Test func anInputThatHasEndedStaysSo() async throws {
        let (host, guest) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let source = SharedDescriptor(try OwnedDescriptor.open("/dev/null", O_RDONLY))
        let relay = try StreamRelay(name: "stdin", engine: source, guest: host, direction: .toGuest)
        await relay.finish()
        try relay.detach()
        await relay.detached()
        #expect(relay.hasLetGo && !relay.isAttachable)
        let next = try SharedDescriptor.socketPair(SOCK_STREAM)
        relay.attach(next.0)
        #expect(try await Self.readAll(guest) == [])
        relay.cancel()
    }

    @Test func aNewConnectionWaitsForTheEndOfTheLast() async throws {
        let (engine, sink) = try SharedDescriptor.pipe()
        let (host, guest) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let relay = try StreamRelay(name: "stdout", engine: sink, guest: host, direction: .fromGuest)
        try relay.detach()
        let next = try SharedDescriptor.socketPair(SOCK_STREAM)
        relay.attach(next.0)
        Self.writeAll(Array("second".utf8), to: next.1)
        Self.writeAll(Array("first ".utf8), to: guest)
        Self.endSending(guest)
        #expect(try await Self.read(12, engine) == Array("first second".utf8))
        relay.cancel()
        await relay.finish()
    }

    @Test(arguments: [StreamRelay.Direction.toGuest, .fromGuest])
    func cancelEndsARelayThatIsDetached(direction: StreamRelay.Direction) async throws {
        let (read, write) = try SharedDescriptor.pipe()
        let engine = SharedDescriptor(try (direction == .toGuest ? read : write).duplicate())
        let relay = try StreamRelay(name: "x", engine: engine, guest: nil, direction: direction)
        await relay.detached()
        #expect(relay.hasLetGo && relay.isAttachable)
        relay.cancel()
        await relay.finish()
        #expect(!relay.isAttachable)
    }

    @Test func aRelayThatEndsLetsGoOfTheEnginesDescriptor() async throws {
        let (read, write) = try SharedDescriptor.pipe()
        // Handed over: no copy of it stays here.
        let relay = try StreamRelay(
            name: "stdout", engine: SharedDescriptor(try write.duplicate()), guest: nil, direction: .fromGuest)
        try Self.replace(write)
        var item = pollfd(fd: read.raw, events: Int16(POLLIN), revents: 0)
        // Detached, it keeps it.
        #expect(poll(&item, 1, 0) == 0)
        relay.cancel()
        #expect(try await Self.readAll(read) == [])
    }

    @Test func cancelEndsARelayThatTheGuestDoesNotLetGoOf() async throws {
        let (source, engine) = try SharedDescriptor.pipe()
        let (host, guest) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let relay = try StreamRelay(name: "stdin", engine: source, guest: host, direction: .toGuest)
        try relay.detach()
        relay.cancel()
        await relay.finish()
        withExtendedLifetime((engine, guest)) {}
    }

    /// Closes what the descriptor refers to, keeping its number from being used again.
    private static func replace(_ descriptor: SharedDescriptor) throws {
        let null = try OwnedDescriptor.open("/dev/null", O_RDWR)
        dup2(null.raw, descriptor.raw)
    }

    // MARK: A process's streams

    /// A process's streams in fifos, as containerd makes them, and the agent's ends of their connections.
    private struct Scene {
        let directory: String
        let streams: ProcessStreams
        /// The engine's ends.
        let stdin: SharedDescriptor
        let stdout: SharedDescriptor
        var agent = StreamConnections()

        init() throws {
            var template = Array("/tmp/martlet-streams.XXXXXX".utf8CString)
            directory = String(cString: try #require(mkdtemp(&template)))
            for name in ["stdin", "stdout"] { try #require(mkfifo("\(directory)/\(name)", 0o600) == 0) }
            let names = StreamNames(stdin: directory + "/stdin", stdout: directory + "/stdout")
            stdout = SharedDescriptor(try OwnedDescriptor.open(names.stdout, O_RDONLY | O_NONBLOCK))
            let engine = try EngineStreams(names, terminal: false, of: "c", namespace: "n")
            stdin = SharedDescriptor(try OwnedDescriptor.open(names.stdin, O_WRONLY | O_NONBLOCK))
            try stdout.setNonBlocking(false)
            streams = try ProcessStreams(engine)
        }

        mutating func attach() async throws -> StreamNumbers {
            var ends: [SharedDescriptor] = []
            let (numbers, connections) = try await streams.connect {
                let (host, guest) = try SharedDescriptor.socketPair(SOCK_STREAM)
                ends.append(guest)
                return (UInt64(ends.count), host)
            }
            agent.stdin = connections.stdin == nil ? nil : ends.removeFirst()
            agent.stdout = connections.stdout == nil ? nil : ends.removeFirst()
            streams.attach(connections)
            return numbers
        }

        /// As the agent does it.
        func endSending() {
            for end in [agent.stdin, agent.stdout] { if let end { StreamDetachTests.endSending(end) } }
        }

        func remove() {
            streams.cancel()
            for name in ["/stdin", "/stdout", ""] { Glibc.remove(directory + name) }
        }
    }

    @Test func aProcessesStreamsGoOn() async throws {
        var scene = try Scene()
        defer { scene.remove() }
        #expect(scene.streams.isDetached && scene.streams.isAttachable)
        for _ in 0..<3 {
            #expect(try await scene.attach() == StreamNumbers(stdin: 1, stdout: 2))
            #expect(!scene.streams.isDetached)
            Self.writeAll([5], to: scene.stdin)
            #expect(try await Self.read(1, #require(scene.agent.stdin)) == [5])
            Self.writeAll([6], to: try #require(scene.agent.stdout))
            try scene.streams.detach()
            scene.endSending()
            try await scene.streams.detached(within: .seconds(60))
            #expect(try await Self.read(1, scene.stdout) == [6])
            #expect(try await Self.readAll(#require(scene.agent.stdin)) == [])
        }
    }

    @Test func anInputThatIsClosedMeanwhileEndsBehindItsLastByte() async throws {
        var scene = try Scene()
        defer { scene.remove() }
        Self.writeAll([7, 8], to: scene.stdin)
        try Self.replace(scene.stdin)
        scene.streams.closeInput()
        #expect(try await scene.attach().stdin == 1)
        #expect(try await Self.readAll(#require(scene.agent.stdin)) == [7, 8])
    }

    @Test func theEndOfAProcessWaitsForTheAttachment() async throws {
        var scene = try Scene()
        defer { scene.remove() }
        let streams = scene.streams
        let over = try Promise<Void>()
        Task {
            await streams.finish(within: .seconds(60))
            over.settle(())
        }
        while streams.isInputOpen { await Task.yield() }
        #expect(over.current == nil)
        #expect(try await scene.attach() == StreamNumbers(stdout: 1))
        Self.writeAll([9], to: try #require(scene.agent.stdout))
        scene.endSending()
        await over.value()
        #expect(try await Self.read(1, scene.stdout) == [9])
    }

    @Test func cancelEndsWhatWaitsForAnAttachment() async throws {
        let scene = try Scene()
        defer { scene.remove() }
        let streams = scene.streams
        async let end: Void = streams.finish(within: .seconds(60))
        streams.cancel()
        await end
        #expect(!streams.isAttachable && !streams.isDetached)
    }

    @Test func anOutputThatNobodyReadsIsNamed() async throws {
        var scene = try Scene()
        defer { scene.remove() }
        _ = try await scene.attach()
        let agent = try #require(scene.agent.stdout)
        try scene.streams.detach()
        // More than the connection and the fifo hold.
        let bytes = Self.bytes
        try startThread("agent") {
            Self.writeAll(bytes, to: agent)
            Self.endSending(agent)
        }
        Self.endSending(try #require(scene.agent.stdin))
        do {
            try await scene.streams.detached(within: .milliseconds(50))
            Issue.record("was detached")
        } catch {
            #expect("\(error)".hasPrefix("stdout: not detached within 0.05 seconds: "), "\(error)")
        }
        // The next connection heals it.
        _ = try await scene.attach()
        Self.writeAll([1], to: try #require(scene.agent.stdout))
        #expect(try await Self.read(bytes.count + 1, scene.stdout) == bytes + [1])
    }
}
