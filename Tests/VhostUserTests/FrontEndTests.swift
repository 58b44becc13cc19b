import CLinux
import Glibc
import LinuxSystem
import Synchronization
import Testing

@testable import VhostUser
@testable import Virtio

/// The front end against this module's back end: real memory, real eventfds, sessions on threads of their own.
@Suite(.timeLimit(.minutes(1))) struct FrontEndTests {
    private static let own = VhostUserFrontEnd.Configuration.own(FileDevice.configuration(tag: "t"))

    /// A front end to a file device that answers each request with the request's own bytes.
    private static func echo(
        _ machine: FakeMachine, broken: Promise<String>
    ) throws -> (VhostUserFrontEnd, session: Promise<String>) {
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let session = try serveSession(theirs) { _ in
            let device = FileDevice(tag: "theirs") { readable, writable in
                guard let first = readable.first, let base = first.iov_base else { return 0 }
                return UInt32(Vectors.copyIn(base, count: first.iov_len, to: writable))
            }
            return try FilesBackend(device: device) { broken.settle($0) }
        }
        let front = try VhostUserFrontEnd(
            socket: ours, memory: machine.regions, queueCount: 2, configuration: own)
        return (front, session)
    }

    /// A request, and whether the reply and the interrupt have arrived.
    private static func echoes(_ machine: FakeMachine, _ queue: Int, _ byte: UInt8) -> Bool {
        let data = FakeMemory.base + 0x20000
        let ring = machine.rings[queue]
        machine.memory.write([byte, 1, 2, 3], at: data)
        machine.memory.write([0, 0, 0, 0], at: data + 64)
        ring.setUsedEvent(ring.used)
        ring.add([(data, 4, false), (data + 64, 64, true)])
        machine.kick(queue)
        return machine.wasInterrupted(queue) && ring.takeUsed().map(\.count) == [4]
            && machine.memory.read(4, at: data + 64) == [byte, 1, 2, 3]
    }

    @Test func filesAreServed() throws {
        let machine = try FakeMachine()
        let (front, session) = try Self.echo(machine, broken: try Promise())
        #expect(front.features == 0 && front.queueCount == 2)
        #expect(front.configuration == Array("t".utf8) + [UInt8](repeating: 0, count: 35) + [1, 0, 0, 0])
        for queue in 0..<2 { try front.start(queue: queue, machine.setup(queue)) }
        for byte: UInt8 in 0..<50 { #expect(Self.echoes(machine, Int(byte & 1), byte)) }
        // A stop, and on from there.
        #expect(front.stop(queue: 1) == 25)
        machine.rings[1].add([(FakeMemory.base + 0x20000, 4, false), (FakeMemory.base + 0x20040, 64, true)])
        machine.kick(1)
        usleep(20_000)
        #expect(machine.rings[1].takeUsed().isEmpty)
        try front.start(queue: 1, machine.setup(1, position: 25))
        #expect(machine.wasInterrupted(1) && machine.rings[1].takeUsed().count == 1)
        #expect(Self.echoes(machine, 1, 99))
        // A reset driver begins anew, with other features too.
        #expect(front.stop(queue: 0) == 25 && front.stop(queue: 1) == 27)
        machine.reset()
        for queue in 0..<2 { try front.start(queue: queue, machine.setup(queue, features: 1 << 32)) }
        for byte: UInt8 in 0..<10 { #expect(Self.echoes(machine, Int(byte & 1), byte)) }
        #expect(front.stop(queue: 0) == 5)
        #expect(session.current == nil)
    }

    @Test func theBackEndLearnsOfTheMachinesEnd() throws {
        let machine = try FakeMachine()
        let session: Promise<String>
        do {
            let front: VhostUserFrontEnd
            (front, session) = try Self.echo(machine, broken: try Promise())
            try front.start(queue: 0, machine.setup(0))
        }
        #expect(session.wait(timeout: .seconds(5)) == "closed")
    }

    @Test func vsockAsksForItsConfiguration() throws {
        let machine = try FakeMachine()
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let (host, stream) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let handOver = Mutex<SharedDescriptor?>(stream)
        let result = try Promise<VsockConnectResult>()
        let go = try TestEvent()
        let trigger = go.raw
        _ = try serveSession(theirs) { loop in
            let backend = VsockBackend(guestCID: 9, loop: loop, finished: { result.settle($1) }, onBroken: { _ in })
            try loop.add(trigger, .readable) { _ in
                _ = consumeKick(trigger)
                guard let stream = handOver.withLock({ $0.take() }) else { return }
                backend.device.connect(port: 5, socket: stream, token: 1, deadline: .max)
            }
            return backend
        }
        let front = try VhostUserFrontEnd(
            socket: ours, memory: machine.regions, queueCount: 2, configuration: .fromBackEnd(size: 8))
        #expect(front.configuration == [9, 0, 0, 0, 0, 0, 0, 0])
        for queue in 0..<2 { try front.start(queue: queue, machine.setup(queue)) }
        let data = FakeMemory.base + 0x20000
        machine.rings[0].add([(data, 4096, true)])
        machine.kick(0)
        go.signal()
        #expect(machine.wasInterrupted(0))
        #expect(machine.rings[0].takeUsed().count == 1)
        var header = VsockHeader(machine.memory.pointer(data))
        #expect(header.operation == 1 && header.destinationPort == 5 && header.destinationCID == 9)
        (header.sourceCID, header.destinationCID) = (9, 2)
        (header.sourcePort, header.destinationPort) = (5, header.sourcePort)
        (header.operation, header.bufferSize, header.forwarded) = (2, 65536, 0)
        header.write(to: machine.memory.pointer(data + 0x10000))
        machine.rings[1].add([(data + 0x10000, 44, false)])
        machine.kick(1)
        #expect(result.wait(timeout: .seconds(5)) == .connected)
        // Bytes that no buffer is there for wait in the host's socket.
        #expect(write(host.raw, "ping", 4) == 4)
        #expect(front.stop(queue: 0) == 1 && front.stop(queue: 1) == 1)
    }

    /// What the guest does wrong is its own error, and the device is there for the next try.
    @Test func wrongRingsAreTheDriversFault() throws {
        let machine = try FakeMachine()
        let (front, _) = try Self.echo(machine, broken: try Promise())
        var setup = machine.setup(0)
        setup.geometry.size = 100
        #expect(throws: QueueError.badSize(100)) { try front.start(queue: 0, setup) }
        setup = machine.setup(0)
        setup.geometry.usedRing = 0x8000_0000
        #expect(throws: QueueError.ringOutsideMemory(part: .used, address: 0x8000_0000)) {
            try front.start(queue: 0, setup)
        }
        setup = machine.setup(0)
        setup.geometry.descriptorTable += 1
        #expect(throws: QueueError.self) { try front.start(queue: 0, setup) }
        try front.start(queue: 0, machine.setup(0))
        #expect(Self.echoes(machine, 0, 1))
    }

    /// Runs a loop until the handler has been called, or for two seconds.
    private static func failures(
        _ front: VhostUserFrontEnd, count: Int = 1, _ then: () throws -> Void
    ) throws -> [VhostUserFrontEnd.Failure] {
        final class List { var list: [VhostUserFrontEnd.Failure] = [] }
        let loop = try EventLoop()
        let report = List()
        try front.watch(loop) { report.list.append($0) }
        try then()
        let end = ContinuousClock.now + .seconds(2)
        while report.list.count < count, ContinuousClock.now < end { try loop.runOnce(timeoutMilliseconds: 50) }
        // Nothing is told twice.
        try loop.runOnce(timeoutMilliseconds: 20)
        front.unwatch(loop)
        return report.list
    }

    @Test func aBrokenRingIsTold() throws {
        let machine = try FakeMachine()
        let reason = try Promise<String>()
        let (front, _) = try Self.echo(machine, broken: reason)
        for queue in 0..<2 { try front.start(queue: queue, machine.setup(queue)) }
        let report = try Self.failures(front) {
            machine.rings[1].publish(500)
            machine.kick(1)
        }
        #expect(report == [.ring(1)])
        #expect(reason.wait(timeout: .seconds(5))?.contains("descriptor 500") == true)
        #expect(Self.echoes(machine, 0, 1))
        #expect(front.stop(queue: 1) == 0)
    }

    @Test func aBackEndThatGoesIsTold() throws {
        let machine = try FakeMachine()
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let script = ScriptedBackEnd(theirs)
        try script.run()
        let front = try VhostUserFrontEnd(
            socket: ours, memory: machine.regions, queueCount: 2, configuration: Self.own)
        try front.start(queue: 0, machine.setup(0))
        let report = try Self.failures(front) { shutdown(theirs.raw, Int32(SHUT_RDWR)) }
        #expect(report == [.connection(.hungUp(0))])
        #expect(throws: SessionError.hungUp(Request.setVringNumber.rawValue)) {
            try front.start(queue: 1, machine.setup(1))
        }
        // The first error stays, and is what a later watch hears.
        #expect(throws: SessionError.hungUp(Request.setVringNumber.rawValue)) {
            try front.start(queue: 1, machine.setup(1))
        }
        #expect(front.stop(queue: 0) == 0)
        let later = try Self.failures(front) {}
        #expect(later == [.connection(.hungUp(Request.setVringNumber.rawValue))])
    }

    /// The messages of a start, in order, and no more of them than needed.
    @Test func theOrderOfThings() throws {
        let machine = try FakeMachine()
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let script = ScriptedBackEnd(theirs)
        try script.run()
        let front = try VhostUserFrontEnd(
            socket: ours, memory: machine.regions, queueCount: 2, configuration: .fromBackEnd(size: 8))
        let hello: [Request] = [
            .getFeatures, .getProtocolFeatures, .setProtocolFeatures, .getQueueNumber, .setOwner, .getConfiguration,
        ]
        #expect(script.log == hello)
        let ring: [Request] = [
            .setVringNumber, .setVringBase, .setVringAddress, .setVringCall, .setVringError, .setVringKick,
            .setVringEnable,
        ]
        for queue in 0..<2 { try front.start(queue: queue, machine.setup(queue)) }
        #expect(script.log == hello + [.setFeatures, .setMemoryTable] + ring + ring)
        #expect(script.lastFeatures == 1 << 28 | 1 << 29 | 1 << 30 | 1 << 32)
        #expect(front.stop(queue: 1) == 7)
        #expect(script.log.suffix(2) == [.setVringEnable, .getVringBase])
        let count = script.log.count
        #expect(front.stop(queue: 1) == 7 && script.log.count == count)
        machine.lines[1].setCall(nil)
        try front.start(queue: 1, machine.setup(1, features: 1 << 32, position: 7))
        #expect(script.log.suffix(8) == ([.setFeatures] + ring)[...])
        #expect(script.lastFeatures == 1 << 30 | 1 << 32)
    }

    @Test func backEndsWithLessOfTheProtocol() throws {
        let machine = try FakeMachine()
        // Without protocol features: no enabling, no acknowledgements, and what was agreed on is not asked for.
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let script = ScriptedBackEnd(theirs)
        script.features = RingFeatures.all.rawValue | 1 << 3 | 1 << 24 | 1 << 26 | 1 << 34
        try script.run()
        let front = try VhostUserFrontEnd(
            socket: ours, memory: machine.regions, queueCount: 2, configuration: Self.own)
        #expect(front.features == 1 << 3)
        try front.start(queue: 0, machine.setup(0, features: 1 << 32 | 1 << 3))
        #expect(front.stop(queue: 0) == 7)
        #expect(script.lastFeatures == 1 << 32 | 1 << 3)
        #expect(!script.log.contains(.setVringEnable) && !script.log.contains(.getProtocolFeatures))
        for (features, protocolFeatures, queues) in [
            (1 << 30 | 1 << 32 as UInt64, 0x209 as UInt64, 2 as UInt64),  // no event index
            (1 << 30 | RingFeatures.all.rawValue, 0x209, 1),  // too few queues
            (1 << 30 | RingFeatures.all.rawValue, 0x9, 2),  // no configuration
            (RingFeatures.all.rawValue, 0, 2),
        ] {
            let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
            let script = ScriptedBackEnd(theirs)
            (script.features, script.protocolFeatures, script.queues) = (features, protocolFeatures, queues)
            try script.run()
            do throws(SessionError) {
                _ = try VhostUserFrontEnd(
                    socket: ours, memory: Self.regions(machine), queueCount: 2, configuration: .fromBackEnd(size: 8))
                Issue.record("taken: \(features), \(protocolFeatures), \(queues)")
            } catch {
                guard case .lacking = error else { throw error }
            }
        }
    }

    private static func regions(_ machine: FakeMachine) throws(SessionError) -> [SharedMemoryRegion] {
        do { return try machine.regions } catch { throw .lacking("memory") }
    }
}
