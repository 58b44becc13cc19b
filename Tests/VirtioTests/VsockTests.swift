import Glibc
import LinuxSystem
import Testing

@testable import Virtio

/// The vsock device with a guest that keeps the rules.
@Suite struct VsockTests {
    private func guest(_ buffers: Int = 32) throws -> FakeGuest {
        let guest = try FakeGuest()
        guest.post(buffers)
        return guest
    }

    @Test func theHostConnects() throws {
        let guest = try guest()
        #expect(guest.device.configuration == [7, 0, 0, 0, 0, 0, 0, 0])
        let stream = try guest.request(port: 1025)
        let packets = guest.take()
        let header = try #require(packets.first).header
        #expect(packets.count == 1 && guest.asked.interrupts == 1)
        #expect(header.sourceCID == 2 && header.destinationCID == 7 && header.type == 1 && header.length == 0)
        #expect(header.operation == 1 && header.destinationPort == 1025 && header.sourcePort == 1 << 30)
        #expect(header.bufferSize == VsockConnection.bufferSize && header.forwarded == 0)
        #expect(guest.asked.results.isEmpty && guest.asked.watches.isEmpty)
        stream.hostPort = header.sourcePort
        guest.send(guest.header(.response, stream))
        #expect(guest.asked.results == [stream.token: .connected])
        #expect(guest.asked.watches.count == 1)
        // The next one has a port of its own.
        #expect(try guest.connect().hostPort == (1 << 30) + 1)
    }

    @Test func attemptsThatFail() throws {
        let early = try FakeGuest(started: false)
        _ = try early.request()
        #expect(early.asked.results == [1: .notReady])

        let guest = try FakeGuest(maximumConnections: 2)
        guest.post(8)
        let refused = try guest.request()
        refused.hostPort = try #require(guest.take().first).header.sourcePort
        guest.send(guest.header(.reset, refused))
        #expect(guest.asked.results[refused.token] == .refused)
        #expect(refused.read() == nil)

        let late = try guest.request(deadline: 1000)
        #expect(guest.device.nextDeadline == 1000)
        _ = guest.take()
        guest.device.expire(now: 999)
        #expect(guest.asked.results[late.token] == nil)
        guest.device.expire(now: 1000)
        #expect(guest.asked.results[late.token] == .timedOut)
        #expect(guest.device.nextDeadline == nil)
        // The guest gets RST, and its late reply is refused.
        #expect(guest.operations() == [.reset])
        guest.send(guest.header(.response, late))
        #expect(guest.operations() == [.reset])

        _ = try (guest.connect(), guest.connect())
        let many = try guest.request()
        #expect(guest.asked.results[many.token] == .tooMany)
    }

    @Test func bytesFlowBothWays() throws {
        let guest = try guest()
        let stream = try guest.connect()
        #expect(stream.write(Array("to the guest".utf8)) == 12)
        guest.settle()
        let packet = try #require(guest.take().first)
        #expect(packet.payload == Array("to the guest".utf8))
        #expect(packet.header.operation == 5 && packet.header.length == 12)
        #expect(packet.header.sourcePort == stream.hostPort && packet.header.destinationPort == 1024)
        guest.data(stream, Array("to the host".utf8))
        #expect(stream.read() == Array("to the host".utf8))
    }

    @Test func aChainMayHaveManyParts() throws {
        let guest = try guest()
        let stream = try guest.connect()
        var bytes = [UInt8](repeating: 0, count: 44) + Array("abcdefgh".utf8)
        bytes.withUnsafeMutableBytes { raw in
            if let base = raw.baseAddress { guest.header(.data, stream, length: 8).write(to: base) }
        }
        guest.sendRaw(bytes, parts: [10, 0, 33, 3, 2, 4])
        #expect(stream.read() == Array("abcdefgh".utf8))
    }

    @Test func halfCloseBothWays() throws {
        let guest = try guest()
        let stream = try guest.connect()
        _ = stream.write(Array("last".utf8))
        shutdown(stream.host, Int32(SHUT_WR))
        guest.settle()
        let packets = guest.take()
        #expect(packets.map(\.header.operation) == [5, 4])
        #expect(packets.last?.header.flags == VsockHeader.shutdownSend)
        #expect(guest.settle() < 3)
        // The other direction is open still.
        guest.data(stream, Array("answer".utf8))
        #expect(stream.read() == Array("answer".utf8))
        var header = guest.header(.shutdown, stream)
        header.flags = VsockHeader.shutdownSend
        guest.send(header)
        #expect(stream.read() == nil)
        // Both directions have ended: so has the stream.
        guest.settle()
        #expect(guest.operations() == [.reset])
        #expect(guest.device.connectionCount == 0 && guest.asked.watches.isEmpty)
    }

    @Test func theGuestStopsReading() throws {
        let guest = try guest()
        let stream = try guest.connect()
        var header = guest.header(.shutdown, stream)
        header.flags = VsockHeader.shutdownReceive
        guest.send(header)
        #expect(stream.write([1]) == -1 && errno == EPIPE)
        guest.data(stream, [1, 2, 3])
        #expect(stream.read() == [1, 2, 3])
        header.flags = VsockHeader.shutdownSend
        guest.send(header)
        #expect(guest.operations() == [.reset])
        #expect(stream.read() == nil)
    }

    @Test func theHostCloses() throws {
        let guest = try guest()
        let stream = try guest.connect()
        _ = stream.write(Array("farewell".utf8))
        stream.closeHost()
        guest.settle()
        let packets = guest.take()
        #expect(packets.first?.payload == Array("farewell".utf8))
        #expect(packets.last?.header.operation == 3)
        #expect(guest.device.connectionCount == 0 && guest.asked.watches.isEmpty)
    }

    @Test func theGuestCloses() throws {
        let guest = try guest()
        let stream = try guest.connect()
        guest.data(stream, Array("farewell".utf8))
        guest.send(guest.header(.reset, stream))
        #expect(stream.read() == Array("farewell".utf8))
        #expect(stream.read() == nil)
        #expect(guest.device.connectionCount == 0)
        #expect(guest.operations().isEmpty)
    }

    @Test func noMoreThanTheGuestHasRoomFor() throws {
        let guest = try guest()
        let stream = try guest.connect(bufferSize: 10)
        #expect(stream.write(Array(0..<26)) == 26)
        guest.settle()
        var got = guest.take().filter { $0.header.operation == 5 }.flatMap(\.payload)
        #expect(got == Array(0..<10))
        #expect(guest.settle() == 0)
        stream.forwarded = 4
        guest.send(guest.header(.creditUpdate, stream))
        guest.settle()
        got += guest.take().filter { $0.header.operation == 5 }.flatMap(\.payload)
        #expect(got == Array(0..<14))
        // A guest that has forwarded what was never sent has no room.
        stream.forwarded = 400
        guest.send(guest.header(.creditUpdate, stream))
        #expect(guest.settle() == 0)
        stream.forwarded = 14
        stream.bufferSize = 100
        guest.send(guest.header(.creditUpdate, stream))
        guest.settle()
        got += guest.take().filter { $0.header.operation == 5 }.flatMap(\.payload)
        #expect(got == Array(0..<26))
    }

    @Test func countersWrap() throws {
        let guest = try guest()
        let stream = try guest.connect()
        let connection = try #require(guest.device.connections[stream.hostPort])
        let start = UInt32.max - 5
        (connection.sent, connection.received, connection.forwarded, connection.advertisedForwarded) = (
            start, start, start, start
        )
        stream.forwarded = start
        stream.bufferSize = 20
        guest.send(guest.header(.creditUpdate, stream))
        #expect(connection.peerFree == 20)
        _ = stream.write(Array(0..<30))
        guest.settle()
        #expect(guest.take().filter { $0.header.operation == 5 }.flatMap(\.payload) == Array(0..<20))
        #expect(connection.sent == start &+ 20 && connection.peerFree == 0)
        stream.forwarded = start &+ 20
        let bytes = (0..<60_000).map { UInt8(truncatingIfNeeded: $0) }
        guest.data(stream, bytes)
        #expect(stream.read() == bytes)
        #expect(connection.received == start &+ 60_000 && connection.credit == VsockConnection.bufferSize)
    }

    @Test func aHostThatDoesNotReadStopsItsStreamAlone() throws {
        let guest = try guest()
        let slow = try guest.connect()
        let other = try guest.connect()
        let connection = try #require(guest.device.connections[slow.hostPort])
        var sent: [UInt8] = []
        var random = Seeded(3)
        while connection.credit > 0 {
            let chunk = (0..<min(Int(connection.credit), 30_000)).map { _ in UInt8.random(in: 0...255, using: &random) }
            guest.data(slow, chunk)
            sent += chunk
            guard connection.state == .established else { return #expect(Bool(false), "reset") }
        }
        #expect(connection.buffer.count == Int(VsockConnection.bufferSize))
        #expect(guest.settle() == 0)
        guest.data(other, [9])
        #expect(other.read() == [9])
        _ = guest.take()
        // As the host reads on, everything comes, in order, and the guest gets its credit back.
        var got: [UInt8] = []
        while got.count < sent.count {
            let bytes = try #require(slow.read())
            got += bytes
            guest.settle()
            if bytes.isEmpty { break }
        }
        #expect(got == sent)
        let updates = guest.take().filter { $0.header.operation == 6 }
        // Not of every byte, but in time: it never sees less than half of its room while there is all of it.
        #expect(
            !updates.isEmpty && connection.received &- connection.advertisedForwarded <= VsockConnection.bufferSize / 2)
        #expect(connection.credit == VsockConnection.bufferSize)
        // And a guest that ends before that loses nothing either.
        guest.data(slow, [1, 2, 3])
        #expect(slow.read() == [1, 2, 3])
    }

    @Test func whatTheGuestSentBeforeItsEndArrives() throws {
        let guest = try guest()
        let slow = try guest.connect()
        var sent = 0
        while guest.device.connections[slow.hostPort].map({ $0.credit > 50_000 }) ?? false {
            guest.data(slow, [UInt8](repeating: 5, count: 50_000))
            sent += 50_000
        }
        guest.send(guest.header(.reset, slow))
        #expect(guest.device.connectionCount == 1)
        var got = 0
        while let bytes = slow.read(), got <= sent {
            got += bytes.count
            guest.settle()
        }
        #expect(got == sent)
        #expect(guest.device.connectionCount == 0 && guest.asked.watches.isEmpty)
    }

    @Test func packetsFitTheBuffersThatTheGuestGives() throws {
        let guest = try FakeGuest()
        guest.post(1, size: 0)
        guest.post(1, size: 43)
        guest.post(1, size: 44)
        guest.post(20, size: 50)
        let stream = try guest.request()
        let header = try #require(guest.take(postAgain: false).first).header
        stream.hostPort = header.sourcePort
        guest.send(guest.header(.response, stream))
        _ = stream.write(Array(0..<20))
        guest.settle()
        #expect(
            guest.take(postAgain: false).map(\.payload) == [Array(0..<6), Array(6..<12), Array(12..<18), [18, 19]])
        guest.post(4, size: 0x10200)
        stream.bufferSize = 1 << 20
        guest.send(guest.header(.creditUpdate, stream))
        var total = 0
        while total < 150_000 { total += max(0, stream.write([UInt8](repeating: 1, count: 50_000))) }
        guest.settle()
        let sizes = guest.take(postAgain: false).map(\.payload.count)
        #expect(sizes.allSatisfy { $0 <= 65536 })
    }

    @Test func aFullRingLosesNothing() throws {
        let guest = try guest(1)
        let stream = try guest.connect()
        let other = try guest.connect()
        _ = guest.take(postAgain: false)
        guest.device.pump()
        _ = stream.write([1])
        _ = other.write([2])
        guest.settle()
        let first = guest.take(postAgain: false)
        #expect(first.count == 1)
        #expect(guest.settle() == 0)
        guest.post(1)
        guest.device.pump()
        guest.settle()
        #expect(Set((first + guest.take()).flatMap(\.payload)) == [1, 2])
    }

    @Test func aResetEndsAllStreams() throws {
        let guest = try guest()
        let stream = try guest.connect()
        let waiting = try guest.request()
        guest.device.reset()
        #expect(guest.asked.results[waiting.token] == .notReady)
        #expect(stream.read() == nil && waiting.read() == nil)
        #expect(guest.device.connectionCount == 0 && guest.asked.watches.isEmpty && guest.device.nextDeadline == nil)
    }
}
