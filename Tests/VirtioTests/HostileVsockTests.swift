import CLinux
import Glibc
import LinuxSystem
import Synchronization
import Testing

@testable import Virtio

/// The vsock device with guests that break the rules.
@Suite struct HostileVsockTests {
    private func guest(_ buffers: Int = 32) throws -> FakeGuest {
        let guest = try FakeGuest()
        guest.post(buffers)
        return guest
    }

    @Test func theGuestCannotConnect() throws {
        let guest = try guest()
        let (socket, _) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let unknown = FakeGuest.Stream(socket, token: 0, guestPort: 5)
        unknown.hostPort = 1024
        guest.send(guest.header(.request, unknown))
        let header = try #require(guest.take().first).header
        #expect(header.operation == 3 && header.sourcePort == 1024 && header.destinationPort == 5)
        #expect(header.sourceCID == 2 && header.destinationCID == FakeGuest.cid)
        for operation: VsockHeader.Operation in [.response, .shutdown, .data, .creditUpdate, .creditRequest] {
            guest.send(guest.header(operation, unknown))
            #expect(guest.operations() == [.reset])
        }
        // An RST is never answered, or two ends would go on for ever.
        guest.send(guest.header(.reset, unknown))
        #expect(guest.operations().isEmpty)
        #expect(guest.device.connectionCount == 0)
    }

    @Test func wrongAddressesTouchNoStream() throws {
        let guest = try guest()
        let stream = try guest.connect()
        let changes: [(inout VsockHeader) -> Void] = [
            { $0.sourceCID = 8 }, { $0.sourceCID = 2 }, { $0.sourceCID = FakeGuest.cid | 1 << 32 },
            { $0.destinationCID = 1 },
            { $0.destinationCID = 2 | 1 << 63 }, { $0.type = 0 }, { $0.type = 2 }, { $0.sourcePort = 9 },
            { $0.destinationPort = 0 },
        ]
        for change in changes {
            var header = guest.header(.data, stream, length: 3)
            change(&header)
            guest.send(header, [1, 2, 3])
            #expect(guest.operations() == [.reset])
        }
        #expect(stream.read() == [])
        guest.data(stream, [4])
        #expect(stream.read() == [4])
    }

    /// Each of these ends the stream with an RST, and nothing of it reaches the host.
    @Test func badPacketsOnAStream() throws {
        var bad: [(FakeGuest, FakeGuest.Stream) -> Void] = []
        for operation: UInt16 in [0, 1, 2, 8, 9, 255, 65535] {
            bad.append { guest, stream in
                var header = guest.header(.data, stream)
                header.operation = operation
                guest.send(header)
            }
        }
        for length: UInt32 in [1, 5, 65537, 1 << 31, .max] {
            bad.append { guest, stream in
                var header = guest.header(.data, stream)
                header.length = length
                guest.send(header, length == 5 ? [1, 2, 3, 4] : [])
            }
        }
        bad.append { guest, stream in
            var header = guest.header(.creditUpdate, stream)
            header.length = 4
            guest.send(header, [1, 2, 3, 4])
        }
        bad.append { guest, stream in guest.data(stream, [UInt8](repeating: 0, count: 65537)) }
        for (number, send) in bad.enumerated() {
            let guest = try guest()
            let stream = try guest.connect()
            send(guest, stream)
            #expect(guest.operations() == [.reset], "case \(number)")
            #expect(stream.read() == nil, "case \(number)")
            #expect(guest.device.connectionCount == 0, "case \(number)")
            #expect(guest.asked.broken.isEmpty)
        }
    }

    @Test func dataAfterTheEnd() throws {
        let guest = try guest()
        let stream = try guest.connect()
        var header = guest.header(.shutdown, stream)
        header.flags = VsockHeader.shutdownSend
        guest.send(header)
        guest.data(stream, [1])
        #expect(guest.operations() == [.reset])
    }

    @Test func answersToARequestThatAreNone() throws {
        for operation: VsockHeader.Operation in [.request, .shutdown, .data, .creditUpdate, .creditRequest] {
            let guest = try guest()
            let stream = try guest.request()
            stream.hostPort = try #require(guest.take().first).header.sourcePort
            guest.send(guest.header(operation, stream))
            #expect(guest.operations() == [.reset])
            #expect(guest.asked.results[stream.token] == .refused)
        }
    }

    @Test func anAnswerBeforeTheQuestion() throws {
        let guest = try FakeGuest()
        let stream = try guest.request()
        stream.hostPort = VsockDevice.firstHostPort
        guest.send(guest.header(.response, stream))
        #expect(guest.asked.results[stream.token] == .refused)
    }

    @Test func moreThanItsCredit() throws {
        let guest = try guest()
        let stream = try guest.connect()
        let connection = try #require(guest.device.connections[stream.hostPort])
        while connection.credit >= 60_000 { guest.data(stream, [UInt8](repeating: 1, count: 60_000)) }
        #expect(connection.state == .established)
        guest.data(stream, [UInt8](repeating: 1, count: Int(connection.credit) + 1))
        #expect(connection.state == .draining)
        #expect(guest.operations().contains(.reset))
        #expect(connection.buffer.count <= Int(VsockConnection.bufferSize))
    }

    @Test func packetsTooShortForAHeader() throws {
        let guest = try guest()
        let stream = try guest.connect()
        for count in [0, 1, 43] { guest.sendRaw([UInt8](repeating: 1, count: count)) }
        guest.transmit.add([(0, 0, false)])
        // A chain with nothing to read but something to write is no packet either.
        guest.transmit.add([(VirtqueueTests.data, 100, true)])
        guest.device.pump()
        #expect(guest.transmit.takeUsed().count == 2)
        #expect(guest.operations().isEmpty && guest.asked.broken.isEmpty)
        guest.data(stream, [1])
        #expect(stream.read() == [1])
    }

    /// CVE-2019-18960: a buffer for packets that lies outside the guest's memory.
    @Test func buffersOutsideMemory() throws {
        let guest = try FakeGuest()
        guest.receive.add([(FakeMemory.base + (16 << 20) - 50, 51, true)])
        let waiting = try guest.request()
        #expect(guest.asked.broken.first?.queue == VsockDevice.receiveQueue)
        #expect(!guest.device.isRunning)
        #expect(guest.asked.results[waiting.token] == .notReady)
        let later = try guest.request()
        #expect(guest.asked.results[later.token] == .notReady)

        let other = try self.guest()
        let stream = try other.connect()
        other.transmit.add([(UInt64.max - 20, 44, false)])
        other.device.pump()
        #expect(other.asked.broken.first?.queue == VsockDevice.transmitQueue)
        #expect(stream.read() == nil)
        #expect(other.asked.watches.isEmpty)
    }

    @Test func aFloodThatIsNeverListenedTo() throws {
        let guest = try FakeGuest(ringSize: 64)
        let (socket, _) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let unknown = FakeGuest.Stream(socket, token: 0, guestPort: 5)
        for _ in 0..<VsockDevice.replyLimit + 40 { guest.send(guest.header(.request, unknown)) }
        // Answers are kept up to a limit; then the ring of packets stands still until the guest listens.
        #expect(guest.device.replies.count == VsockDevice.replyLimit)
        #expect(guest.settle() == 0)
        var resets = 0
        guest.post(64)
        for _ in 0..<20 {
            guest.device.pump()
            resets += guest.operations().count
        }
        #expect(resets == VsockDevice.replyLimit + 40)
        #expect(guest.device.replies.isEmpty)
    }

    @Test func theEndOfHostSocketsKeepsNobodyBusy() throws {
        // No buffers, no credit, and a host that has hung up: nothing to do, so nothing is done.
        let guest = try guest(1)
        let stream = try guest.connect(bufferSize: 0)
        _ = guest.take(postAgain: false)
        _ = stream.write([1, 2, 3])
        stream.closeHost()
        guest.settle()
        #expect(guest.settle() == 0)
        guest.post(8)
        stream.bufferSize = 100
        guest.send(guest.header(.creditUpdate, stream))
        guest.settle()
        let packets = guest.take()
        #expect(packets.flatMap(\.payload) == [1, 2, 3])
        #expect(packets.last?.header.operation == 3)
        #expect(guest.asked.watches.isEmpty)
    }

    /// Headers that another processor of the guest rewrites while the device reads them.
    @Test func headersThatChangeUnderTheDevice() throws {
        let guest = try FakeGuest(ringSize: 64)
        guest.post(32, size: 0x10200)
        let writer = try HeaderWriter(guest.memory, at: FakeMemory.base + 0x80_0000)
        defer { writer.finish() }
        var random = Seeded(5)
        var established = 0
        let start = ContinuousClock.now
        // On a busy machine the other thread may be long in coming.
        while ContinuousClock.now < start + (established > 50 ? .seconds(1) : .seconds(30)) {
            if guest.device.connectionCount < 4 {
                _ = try guest.request(port: UInt32.random(in: 0..<4, using: &random))
            }
            let length = UInt32.random(in: 44...3000, using: &random)
            guest.transmit.add([(FakeMemory.base + 0x80_0000, length, false)])
            guest.device.pump()
            _ = guest.transmit.takeUsed()
            for connection in guest.device.connections.values where connection.state == .established {
                established += 1
                #expect(connection.received &- connection.forwarded <= VsockConnection.bufferSize)
                #expect(connection.buffer.count <= Int(VsockConnection.bufferSize))
            }
            for packet in guest.take() where packet.header.operation == 1 {
                writer.aim(hostPort: packet.header.sourcePort, guestPort: packet.header.destinationPort)
            }
        }
        #expect(guest.asked.broken.isEmpty && established > 50)
    }

    @Test func fuzz() throws {
        var random = Seeded(4242)
        let end = ContinuousClock.now + .seconds(2)
        var packets = 0
        while ContinuousClock.now < end {
            let guest = try FakeGuest(ringSize: 32, maximumConnections: 8)
            guest.post(16)
            var streams: [FakeGuest.Stream] = []
            for _ in 0..<200 {
                packets += 1
                step(guest, &streams, &random)
                for packet in guest.take() where packet.header.operation == 1 {
                    streams.first { $0.hostPort == 0 && $0.guestPort == packet.header.destinationPort }?.hostPort =
                        packet.header.sourcePort
                }
                guest.settle(limit: 2000)
                #expect(guest.device.connectionCount <= 8)
                #expect(guest.device.replies.count <= VsockDevice.replyLimit + 8)
            }
            #expect(guest.asked.broken.isEmpty)
            guest.device.reset()
            #expect(guest.asked.watches.count <= guest.device.connectionCount)
        }
        #expect(packets > 500)
    }

    private func step(_ guest: FakeGuest, _ streams: inout [FakeGuest.Stream], _ random: inout Seeded) {
        let stream = streams.randomElement(using: &random)
        switch Int.random(in: 0..<12, using: &random) {
        case 0:
            if let new = try? guest.request(port: UInt32.random(in: 1...3, using: &random)) { streams.append(new) }
        case 1: stream?.closeHost()
        case 2: if let stream, stream.keep != nil { _ = stream.write([UInt8](repeating: 1, count: 5000)) }
        case 3: if let stream, stream.keep != nil { _ = stream.read() }
        case 4:
            guest.sendRaw(
                (0..<Int.random(in: 0...100, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) })
        default:
            guard let stream else { return }
            var header = guest.header(.init(rawValue: UInt16.random(in: 1...7, using: &random)) ?? .data, stream)
            if Bool.random(using: &random) { header.operation = [2, 5, 5, 5, 6, 7].randomElement(using: &random) ?? 5 }
            header.bufferSize = UInt32.random(in: 0...20_000, using: &random)
            header.forwarded = stream.forwarded &+ UInt32.random(in: 0...3000, using: &random)
            header.flags = UInt32.random(in: 0...3, using: &random)
            let size = Int.random(in: 0...70_000, using: &random)
            let payload = header.operation == 5 ? [UInt8](repeating: 7, count: size) : []
            header.length = UInt32(payload.count)
            switch Int.random(in: 0..<20, using: &random) {
            case 0: header.length = UInt32.random(in: 0...UInt32.max, using: &random)
            case 1: header.sourceCID = UInt64.random(in: 0...10, using: &random)
            case 2: header.type = UInt16.random(in: 0...3, using: &random)
            case 3: header.operation = UInt16.random(in: 0...10, using: &random)
            default: break
            }
            guest.send(header, payload)
        }
    }
}

/// Another processor of the guest: keeps rewriting one packet's header, mostly with what makes sense.
private final class HeaderWriter: Sendable {
    private let stopped = Atomic(false)
    private let ports = Atomic<UInt64>(0)
    private let ended: Promise<Void>

    init(_ memory: FakeMemory, at address: UInt64) throws {
        ended = try Promise<Void>()
        let base = UInt(bitPattern: memory.pointer(address))
        try startThread("header writer") { [self] in
            var random = Seeded(6)
            while !stopped.load(ordering: .relaxed), let place = UnsafeMutableRawPointer(bitPattern: base) {
                let ports = ports.load(ordering: .relaxed)
                var header = VsockHeader()
                (header.sourceCID, header.destinationCID) = (FakeGuest.cid, 2)
                header.sourcePort = UInt32(truncatingIfNeeded: ports)
                header.destinationPort = UInt32(truncatingIfNeeded: ports >> 32)
                header.operation = [2, 2, 5, 5, 5, 6].randomElement(using: &random) ?? 5
                header.length = header.operation == 5 ? UInt32.random(in: 0...2000, using: &random) : 0
                header.bufferSize = UInt32.random(in: 0...70_000, using: &random)
                if Int.random(in: 0..<50, using: &random) == 0 { header.length = .max }
                header.write(to: place)
            }
            ended.settle(())
        }
    }

    func aim(hostPort: UInt32, guestPort: UInt32) {
        ports.store(UInt64(hostPort) << 32 | UInt64(guestPort), ordering: .relaxed)
    }

    func finish() {
        stopped.store(true, ordering: .relaxed)
        _ = ended.wait()
    }
}
