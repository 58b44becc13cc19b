import CLinux
import Glibc
import LinuxSystem
import Testing

/// A relay between two socket pairs: the test has the other ends, of a local peer and of the machine.
@Suite struct SocketRelayTests {
    private final class Scene: Sendable {
        let peer: SharedDescriptor
        let machine: SharedDescriptor
        let end: Promise<SocketRelay.End>

        init(linger: Duration = .zero) throws {
            let (peer, local) = try SharedDescriptor.socketPair(SOCK_STREAM)
            let (machine, stream) = try SharedDescriptor.socketPair(SOCK_STREAM)
            let end = try Promise<SocketRelay.End>()
            (self.peer, self.machine, self.end) = (peer, machine, end)
            try startThread("relay") {
                end.settle(SocketRelay.carry(local: local, machine: stream, linger: linger))
                // Both are closed with the end, as their owner does it.
            }
        }
    }

    private static func bytes(_ count: Int, _ seed: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: ($0 &+ seed) &* 31 &+ $0 >> 8) }
    }

    /// Writes all of it and ends that direction.
    private static func feed(_ bytes: [UInt8], to socket: SharedDescriptor) throws {
        try startThread("feed") {
            var left = bytes[...]
            while !left.isEmpty {
                let count = left.withUnsafeBytes { send(socket.raw, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
                guard count > 0 else { return }
                left = left.dropFirst(count)
            }
            shutdown(socket.raw, Int32(SHUT_WR))
        }
    }

    private static func readAll(_ socket: SharedDescriptor) -> [UInt8] {
        var all: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 50_000)
        while true {
            let count = read(socket.raw, &chunk, chunk.count)
            if count <= 0 { return all }
            all += chunk[..<count]
        }
    }

    @Test func bothDirectionsAreCarriedToTheirEnds() throws {
        let scene = try Scene()
        let (out, back) = (Self.bytes(3 << 20, 1), Self.bytes(2 << 20, 2))
        try Self.feed(out, to: scene.peer)
        try Self.feed(back, to: scene.machine)
        let received = try Promise<[UInt8]>()
        try startThread("read") { received.settle(Self.readAll(scene.machine)) }
        #expect(Self.readAll(scene.peer) == back)
        #expect(received.wait() == out)
        #expect(scene.end.wait() == .closed)
    }

    /// One direction is over; the other goes on, whichever it is.
    @Test(arguments: [false, true]) func aHalfClosedConnectionAnswers(fromMachine: Bool) throws {
        let scene = try Scene()
        let (asking, answering) = fromMachine ? (scene.machine, scene.peer) : (scene.peer, scene.machine)
        try Self.feed(Array("question".utf8), to: asking)
        #expect(Self.readAll(answering) == Array("question".utf8))
        let answer = Self.bytes(1 << 20, 3)
        try Self.feed(answer, to: answering)
        #expect(Self.readAll(asking) == answer)
        #expect(scene.end.wait() == .closed)
    }

    @Test func whoDoesNotReadHoldsUpTheSender() throws {
        let scene = try Scene()
        try scene.peer.setNonBlocking(true)
        let chunk = [UInt8](repeating: 1, count: 16 << 10)
        var sent = 0
        // Until the relay takes no more for a while.
        var item = pollfd(fd: scene.peer.raw, events: Int16(POLLOUT), revents: 0)
        while poll(&item, 1, 300) > 0 {
            sent += max(send(scene.peer.raw, chunk, chunk.count, Int32(MSG_NOSIGNAL)), 0)
            try #require(sent < 8 << 20)
        }
        shutdown(scene.peer.raw, Int32(SHUT_WR))
        #expect(Self.readAll(scene.machine).count == sent)
        shutdown(scene.machine.raw, Int32(SHUT_RDWR))
        #expect(scene.end.wait() == .closed)
    }

    /// What a peer has sent before it closed arrives; then the connection is over for the machine.
    @Test func aClosedPeerEndsTheConnection() throws {
        let scene = try Scene()
        #expect(send(scene.peer.raw, "last", 4, 0) == 4)
        shutdown(scene.peer.raw, Int32(SHUT_RDWR))
        #expect(Self.readAll(scene.machine) == Array("last".utf8))
        #expect(scene.end.wait() == .closed)
    }

    @Test func aClosedMachineEndsTheConnection() throws {
        let scene = try Scene()
        #expect(send(scene.machine.raw, "last", 4, 0) == 4)
        shutdown(scene.machine.raw, Int32(SHUT_RDWR))
        #expect(Self.readAll(scene.peer) == Array("last".utf8))
        #expect(scene.end.wait() == .closed)
    }

    /// A server that answers early and closes: the answer is not lost although the machine goes on sending.
    @Test func whatAClosedPeerDoesNotTakeIsTakenForAWhile() throws {
        let scene = try Scene(linger: .seconds(60))
        #expect(send(scene.peer.raw, "no", 2, 0) == 2)
        shutdown(scene.peer.raw, Int32(SHUT_RDWR))
        let chunk = [UInt8](repeating: 1, count: 64 << 10)
        for _ in 0..<32 { #expect(send(scene.machine.raw, chunk, chunk.count, Int32(MSG_NOSIGNAL)) == chunk.count) }
        #expect(Self.readAll(scene.machine) == Array("no".utf8))
        #expect(scene.end.current == nil)
        shutdown(scene.machine.raw, Int32(SHUT_WR))
        #expect(scene.end.wait() == .closed)
        // And not longer than that.
        let short = try Scene(linger: .milliseconds(20))
        shutdown(short.peer.raw, Int32(SHUT_RDWR))
        #expect(short.end.wait() == .closed)
    }

    @Test func aPassedDescriptorEndsTheConnection() throws {
        let scene = try Scene()
        let before = try directoryNames("/proc/self/fd").count
        let byte: [UInt8] = [1]
        let copy = OwnedDescriptor(owning: dup(scene.peer.raw))
        try byte.withUnsafeBytes { try copy.send($0, descriptors: [0, 1, 2]) }
        #expect(scene.end.wait() == .descriptorPassed)
        #expect(try directoryNames("/proc/self/fd").count <= before + 1)
    }
}
