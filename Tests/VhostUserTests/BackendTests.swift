import CLinux
import Glibc
import LinuxSystem
import Synchronization
import Testing

@testable import VhostUser
@testable import Virtio

/// Whole devices behind the protocol: rings, eventfds, and threads as in the device processes.
@Suite(.timeLimit(.minutes(1))) struct BackendTests {
    @Test func filesAreServedByAnotherThread() throws {
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let reasons = try Promise<String>()
        let done = try serveSession(theirs) { _ in
            let device = FileDevice(tag: "t") { readable, writable in
                guard let first = readable.first, let base = first.iov_base else { return 0 }
                return UInt32(Vectors.copyIn(base, count: first.iov_len, to: writable))
            }
            return try FilesBackend(device: device) { reasons.settle($0) }
        }
        let memory = try FakeMemory()
        let front = FakeFrontEnd(ours, memory: memory)
        let rings = (0..<2).map { FakeRing(memory, at: FakeMemory.base + 0x8000 * UInt64($0), size: 64) }
        let (kick0, kick1, call0, call1) = try (TestEvent(), TestEvent(), TestEvent(), TestEvent())
        let data = FakeMemory.base + 0x20000
        memory.write(Array("request".utf8), at: data)
        // In the ring before the device has started: seen without a kick.
        rings[1].add([(data, 7, false), (data + 64, 64, true)])
        try front.bringUp(
            rings, [kick0.raw, kick1.raw], [call0.raw, call1.raw],
            protocolFeatures: 9)
        #expect(try front.ask(.getQueueNumber) == 2)
        let deadline = ContinuousClock.now + .seconds(5)
        while rings[1].takeUsed().isEmpty, ContinuousClock.now < deadline { usleep(1000) }
        #expect(memory.read(7, at: data + 64) == Array("request".utf8))
        call1.drain()
        for round: UInt8 in 0..<100 {
            memory.write([round], at: data)
            rings[1].setUsedEvent(rings[1].used)
            rings[1].add([(data, 7, false), (data + 64, 64, true)])
            kick1.signal()
            guard isReadable(call1.raw), rings[1].takeUsed().first?.count == 7 else {
                Issue.record("no answer in round \(round)")
                break
            }
            call1.drain()
            #expect(memory.read(1, at: data + 64) == [round])
        }
        // A FORGET after a request, without a kick, as the device asks for none so soon: served, and announced, anyhow.
        call0.drain()
        rings[0].setUsedEvent(rings[0].used)
        rings[0].add([(data, 7, false)])
        #expect(isReadable(call0.raw))
        #expect(rings[0].takeUsed().map(\.count) == [0])
        let base = try front.ask(.getVringBase, FakeFrontEnd.bytes(1 as UInt32, 0 as UInt32))
        #expect(base >> 32 == 101)
        // Stopped: what is added now stays where it is.
        rings[1].add([(data, 7, false), (data + 64, 64, true)])
        kick1.signal()
        usleep(20_000)
        #expect(rings[1].takeUsed().isEmpty)
        // A broken ring: its error descriptor, and the reason.
        let error = try TestEvent()
        try front.send(.setVringError, FakeFrontEnd.bytes(0 as UInt64), [error.raw])
        _ = try front.ask(.getQueueNumber)
        rings[0].publish(64)
        kick0.signal()
        #expect(isReadable(error.raw))
        #expect(
            reasons.wait(timeout: .seconds(5))
                == "file system queue 0: available entry names descriptor 64 beyond the table")
        shutdown(ours.raw, Int32(SHUT_RDWR))
        #expect(done.wait(timeout: .seconds(5)) == "closed")
    }

    @Test func vsockOverTheProtocol() throws {
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let (host, handOver) = try Self.stream()
        let result = try Promise<VsockConnectResult>()
        let go = try TestEvent()
        let trigger = go.raw
        let done = try serveSession(theirs) { loop in
            let backend = VsockBackend(guestCID: 9, loop: loop, finished: { result.settle($1) }, onBroken: { _ in })
            try loop.add(trigger, .readable) { _ in
                _ = consumeKick(trigger)
                guard let stream = handOver.take() else { return }
                backend.device.connect(port: 5, socket: stream, token: 1, deadline: .max)
            }
            return backend
        }
        let memory = try FakeMemory()
        let front = FakeFrontEnd(ours, memory: memory)
        let rings = (0..<2).map { FakeRing(memory, at: FakeMemory.base + 0x8000 * UInt64($0), size: 128) }
        let (kick0, kick1, call0, call1) = try (TestEvent(), TestEvent(), TestEvent(), TestEvent())
        try front.send(
            .getConfiguration,
            FakeFrontEnd.bytes(0 as UInt32, 8 as UInt32, 0 as UInt32) + [UInt8](repeating: 0, count: 8))
        #expect(try front.reply(to: .getConfiguration)?.suffix(8) == [9, 0, 0, 0, 0, 0, 0, 0])
        let data = FakeMemory.base + 0x20000
        for number in 0..<8 { rings[0].add([(data + UInt64(number) * 4096, 4096, true)]) }
        try front.bringUp(rings, [kick0.raw, kick1.raw], [call0.raw, call1.raw])
        _ = try front.ask(.getQueueNumber)
        go.signal()
        #expect(isReadable(call0.raw))
        call0.drain()
        #expect(rings[0].takeUsed().count == 1)
        var header = VsockHeader(memory.pointer(data))
        #expect(header.operation == 1 && header.destinationPort == 5 && header.destinationCID == 9)
        (header.sourceCID, header.destinationCID) = (9, 2)
        (header.sourcePort, header.destinationPort) = (5, header.sourcePort)
        (header.operation, header.bufferSize, header.forwarded) = (2, 65536, 0)
        header.write(to: memory.pointer(data + 0x10000))
        rings[1].add([(data + 0x10000, 44, false)])
        kick1.signal()
        #expect(result.wait(timeout: .seconds(5)) == .connected)
        rings[0].setUsedEvent(1)
        #expect(write(host.raw, "ping", 4) == 4)
        #expect(isReadable(call0.raw))
        #expect(memory.read(4, at: data + 4096 + 44) == Array("ping".utf8))
        // A reboot: rings from 0 again, and no stream of the old guest.
        for index: UInt32 in 0...1 { _ = try front.ask(.getVringBase, FakeFrontEnd.bytes(index, 0 as UInt32)) }
        let fresh = (0..<2).map { FakeRing(memory, at: FakeMemory.base + 0x8000 * UInt64($0), size: 128) }
        try front.configure(0, fresh[0], kick0.raw)
        try front.configure(1, fresh[1], kick1.raw)
        var byte: UInt8 = 0
        #expect(isReadable(host.raw) && recv(host.raw, &byte, 1, Int32(MSG_DONTWAIT)) == 0)
        shutdown(ours.raw, Int32(SHUT_RDWR))
        #expect(done.wait(timeout: .seconds(5)) == "closed")
    }

    /// A descriptor that another thread takes over, so that nobody else keeps it open.
    private final class HandOver: Sendable {
        private let descriptor: Mutex<SharedDescriptor?>
        init(_ descriptor: SharedDescriptor) { self.descriptor = Mutex(descriptor) }
        func take() -> SharedDescriptor? { descriptor.withLock { $0.take() } }
    }

    private static func stream() throws -> (SharedDescriptor, HandOver) {
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
        return (ours, HandOver(theirs))
    }

    /// A kick descriptor that is always ready must not keep the thread busy.
    @Test func aKickThatIsNoEventfd() throws {
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let broken = try Promise<String>()
        let done = try serveSession(theirs) { loop in
            VsockBackend(guestCID: 9, loop: loop, finished: { _, _ in }, onBroken: { broken.settle($0) })
        }
        let memory = try FakeMemory()
        let front = FakeFrontEnd(ours, memory: memory)
        let rings = (0..<2).map { FakeRing(memory, at: FakeMemory.base + 0x8000 * UInt64($0), size: 128) }
        let (read, _) = try SharedDescriptor.pipe()
        let call = try TestEvent()
        try front.bringUp(rings, [read.raw, read.raw], [call.raw])
        #expect(broken.wait(timeout: .seconds(5))?.contains("is not an eventfd") == true)
        shutdown(ours.raw, Int32(SHUT_RDWR))
        #expect(done.wait(timeout: .seconds(5)) == "closed")
    }
}
