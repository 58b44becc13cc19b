import CLinux
import Glibc
import LinuxSystem
import Synchronization
import Testing

@testable import VhostUser
@testable import Virtio

/// A device that remembers what the session asked of it.
private final class Recorder: BackendDevice {
    var features: UInt64 = 1 << 5
    var queueCount = 2
    var ownsConfiguration = true
    var configuration: [UInt8] = [1, 2, 3, 4, 5, 6, 7, 8]
    var running: [Int: QueueSetup] = [:]
    var log: [String] = []

    func start(queue: Int, _ setup: QueueSetup) throws {
        let ring = Virtqueue()
        try ring.start(setup.geometry, memory: setup.memory, features: setup.features, position: setup.position)
        log.append("start \(queue) at \(setup.position)\(setup.isFresh ? " fresh" : "")")
        running[queue] = setup
    }

    func stop(queue: Int) -> UInt16 {
        log.append("stop \(queue)")
        running[queue] = nil
        return 77
    }
}

/// The protocol, message by message. The session runs on the test's thread.
@Suite struct SessionTests {
    private final class Harness {
        let front: FakeFrontEnd
        let device = Recorder()
        let session: Session
        let memory: FakeMemory
        let rings: [FakeRing]
        let kicks: [TestEvent]
        let broken = Reasons()

        final class Reasons { var list: [String] = [] }

        init() throws {
            let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
            memory = try FakeMemory()
            let memory = memory
            front = FakeFrontEnd(ours, memory: memory)
            let broken = broken
            session = Session(socket: theirs, device: device) { broken.list.append($0) }
            rings = (0..<2).map { FakeRing(memory, at: FakeMemory.base + 0x8000 * UInt64($0), size: 128) }
            kicks = try (0..<2).map { _ in try TestEvent() }
        }

        /// Sends, and lets the session handle it.
        func send(_ request: Request, _ payload: [UInt8] = [], _ descriptors: [Int32] = [], flags: UInt32 = 1) throws {
            try front.send(request, payload, descriptors, flags: flags)
            _ = try session.receive()
        }

        func ask(_ request: Request, _ payload: [UInt8] = []) throws -> [UInt8] {
            try send(request, payload)
            return try #require(try front.reply(to: request))
        }

        func bringUp() throws {
            try send(.setProtocolFeatures, FakeFrontEnd.bytes(0x208 as UInt64))
            try send(.setFeatures, FakeFrontEnd.bytes(1 << 30 | 1 << 32 as UInt64))
            try front.sendMemory()
            for index in 0..<2 { try front.configure(UInt32(index), rings[index], kicks[index].raw) }
            _ = try session.receive()
        }
    }

    private typealias F = FakeFrontEnd

    @Test func featuresAndConfiguration() throws {
        let harness = try Harness()
        #expect(try harness.ask(.getFeatures) == F.bytes(1 << 5 | 1 << 28 | 1 << 29 | 1 << 30 | 1 << 32 as UInt64))
        #expect(try harness.ask(.getProtocolFeatures) == F.bytes(0x209 as UInt64))
        #expect(try harness.ask(.getQueueNumber) == F.bytes(2 as UInt64))
        let ask = F.bytes(2 as UInt32, 4 as UInt32, 0 as UInt32) + [0, 0, 0, 0]
        #expect(
            try harness.ask(.getConfiguration, ask) == F.bytes(2 as UInt32, 4 as UInt32, 0 as UInt32) + [3, 4, 5, 6])
        let beyond = F.bytes(6 as UInt32, 4 as UInt32, 0 as UInt32) + [0, 0, 0, 0]
        #expect(try harness.ask(.getConfiguration, beyond) == F.bytes(6 as UInt32, 0 as UInt32, 0 as UInt32))
        harness.device.ownsConfiguration = false
        #expect(try harness.ask(.getProtocolFeatures) == F.bytes(9 as UInt64))
    }

    @Test func ringsStartWhenTheyAreWholeAndEnabled() throws {
        let harness = try Harness()
        try harness.bringUp()
        #expect(harness.device.log.isEmpty)
        try harness.send(.setVringEnable, F.bytes(0 as UInt32, 1 as UInt32))
        #expect(harness.device.log == ["start 0 at 0 fresh"])
        try harness.send(.setVringEnable, F.bytes(0 as UInt32, 1 as UInt32))
        #expect(harness.device.log.count == 1)
        try harness.send(.setVringEnable, F.bytes(0 as UInt32, 0 as UInt32))
        #expect(try harness.ask(.getVringBase, F.bytes(0 as UInt32, 0 as UInt32)) == F.bytes(0 as UInt32, 77 as UInt32))
        #expect(harness.device.log == ["start 0 at 0 fresh", "stop 0"])
        // A stop and a continuation: where it was. A reboot: from nothing.
        try harness.send(.setVringBase, F.bytes(0 as UInt32, 77 as UInt32))
        try harness.send(.setVringKick, F.bytes(0 as UInt64), [harness.kicks[0].raw])
        try harness.send(.setVringEnable, F.bytes(0 as UInt32, 1 as UInt32))
        #expect(harness.device.log.last == "start 0 at 77")
        _ = try harness.ask(.getVringBase, F.bytes(0 as UInt32, 0 as UInt32))
        try harness.send(.setVringBase, F.bytes(0 as UInt32, 0 as UInt32))
        try harness.send(.setVringKick, F.bytes(0 as UInt64), [harness.kicks[0].raw])
        #expect(harness.device.log.last == "start 0 at 0 fresh")
    }

    @Test func newMemoryWhileRingsRun() throws {
        let harness = try Harness()
        try harness.bringUp()
        try harness.send(.setVringEnable, F.bytes(1 as UInt32, 1 as UInt32))
        try harness.front.sendMemory()
        _ = try harness.session.receive()
        #expect(harness.device.log == ["start 1 at 0 fresh", "stop 1", "start 1 at 77"])
    }

    @Test func interruptsGoToTheLatestDescriptor() throws {
        let harness = try Harness()
        try harness.bringUp()
        try harness.send(.setVringEnable, F.bytes(0 as UInt32, 1 as UInt32))
        let setup = try #require(harness.device.running[0])
        setup.lines.interrupt()
        let (first, second, error) = try (TestEvent(), TestEvent(), TestEvent())
        try harness.send(.setVringCall, F.bytes(0 as UInt64), [first.raw])
        setup.lines.interrupt()
        #expect(first.drain() && !second.drain())
        try harness.send(.setVringCall, F.bytes(0 as UInt64), [second.raw])
        try harness.send(.setVringError, F.bytes(0 as UInt64), [error.raw])
        setup.lines.interrupt()
        #expect(!first.drain() && second.drain() && !error.drain())
        setup.lines.reportError()
        #expect(error.drain() && !second.drain())
        try harness.send(.setVringCall, F.bytes(256 as UInt64))
        setup.lines.interrupt()
        #expect(!second.drain())
    }

    @Test func repliesAreGivenWhereAsked() throws {
        let harness = try Harness()
        try harness.send(.setOwner, flags: 9)
        try harness.send(.setProtocolFeatures, F.bytes(8 as UInt64))
        try harness.send(.setOwner, flags: 9)
        // Only the second had the feature; a request with an answer of its own gets just that.
        #expect(try harness.front.reply(to: .setOwner) == F.bytes(0 as UInt64))
        try harness.send(.getFeatures, flags: 9)
        _ = try harness.front.reply(to: .getFeatures)
        try harness.send(.setOwner, flags: 1)
        #expect(!isReadable(harness.front.socket.raw, 0))
    }

    @Test func bytesComeOneByOne() throws {
        let harness = try Harness()
        for byte in F.message(1) {
            try harness.front.sendRaw([byte])
            #expect(try harness.session.receive())
        }
        #expect(try harness.front.reply(to: .getFeatures)?.count == 8)
        // Several in one piece.
        try harness.front.sendRaw(F.message(3) + F.message(1) + F.message(17))
        #expect(try harness.session.receive())
        #expect(try harness.front.reply(to: .getFeatures)?.count == 8)
        #expect(try harness.front.reply(to: .getQueueNumber)?.count == 8)
    }

    @Test func theEnd() throws {
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let session = Session(socket: theirs, device: Recorder()) { _ in }
        shutdown(ours.raw, Int32(SHUT_RDWR))
        #expect(try !session.receive())
        let harness = try Harness()
        try harness.front.sendRaw([1, 0, 0])
        _ = try harness.session.receive()
        shutdown(harness.front.socket.raw, Int32(SHUT_RDWR))
        #expect(throws: SessionError.self) { try harness.session.receive() }
    }

    @Test func ringsOutsideMemoryBreakTheDeviceNotTheSession() throws {
        let harness = try Harness()
        try harness.bringUp()
        try harness.send(
            .setVringAddress, F.bytes(0 as UInt32, 0 as UInt32, 16 as UInt64, 16 as UInt64, 16 as UInt64, 0 as UInt64))
        let error = try TestEvent()
        try harness.send(.setVringError, F.bytes(0 as UInt64), [error.raw])
        try harness.send(.setVringEnable, F.bytes(0 as UInt32, 1 as UInt32))
        #expect(harness.broken.list == ["ring 0 outside the machine's memory"])
        #expect(error.drain())
        try harness.send(.setVringNumber, F.bytes(1 as UInt32, 100 as UInt32))
        try harness.send(.setVringEnable, F.bytes(1 as UInt32, 1 as UInt32))
        #expect(harness.broken.list.last == "ring 1: queue size 100")
        #expect(try harness.ask(.getQueueNumber).count == 8)
    }

    /// Each of these ends the session with an error.
    @Test func malformedMessages() throws {
        let table = { (count: UInt32, fields: [UInt64]) in
            F.bytes(count, 0 as UInt32) + fields.flatMap { F.bytes($0) }
        }
        let good: [UInt64] = [0, 4096, 0, 0]
        var cases: [([UInt8], Int)] = [
            (F.bytes(1 as UInt32, 0 as UInt32, 0 as UInt32), 0),  // another version
            (F.bytes(1 as UInt32, 5 as UInt32, 0 as UInt32), 0),  // a reply to nothing
            (F.bytes(1 as UInt32, 1 as UInt32, 513 as UInt32), 0),
            (F.bytes(1 as UInt32, 1 as UInt32, UInt32.max), 0),
            (F.message(5), 0), (F.message(5, table(0, [])), 0), (F.message(5, table(1, good)), 0),
            (F.message(5, table(1, good)), 2), (F.message(5, table(2, good)), 1), (F.message(5, table(9, [])), 8),
            (F.message(5, table(1, [0, 0, 0, 0])), 1), (F.message(5, table(1, [0, 4096, 0, 1])), 1),
            (F.message(5, table(1, [0, 1 << 40, 0, 0])), 1),
            (F.message(5, table(1, [0, 4096, 0, UInt64.max & ~4095])), 1),
            (F.message(5, table(1, [UInt64.max - 100, 4096, 0, 0])), 1),
            (F.message(5, table(1, [0, 4096, UInt64.max - 100, 0])), 1),
            (F.message(5, table(2, good + good)), 2),
            (F.message(2, [1]), 0), (F.message(2, F.bytes(UInt64.max)), 0),
            (F.message(16, F.bytes(1 << 20 as UInt64)), 0),
            (F.message(25, F.bytes(0 as UInt32, 0 as UInt32, 0 as UInt32)), 0), (F.message(24, [1]), 0),
            (F.message(24, F.bytes(0 as UInt32, 100 as UInt32, 0 as UInt32)), 0),
        ]
        for request: UInt32 in [0, 6, 7, 19, 20, 21, 22, 31, 37, 39, 41, 1000, .max] {
            cases.append((F.message(request), 0))
        }
        for request: UInt32 in [8, 10, 18, 11] {
            cases.append((F.message(request, F.bytes(2 as UInt32, 0 as UInt32)), 0))
            cases.append((F.message(request, F.bytes(UInt32.max, 1 as UInt32)), 0))
            cases.append((F.message(request, [0, 0, 0, 0]), 0))
        }
        cases.append((F.message(10, F.bytes(0 as UInt32, 65536 as UInt32)), 0))
        cases.append((F.message(18, F.bytes(0 as UInt32, 2 as UInt32)), 0))
        cases.append((F.message(9, F.bytes(2 as UInt32, 0 as UInt32) + [UInt8](repeating: 0, count: 32)), 0))
        cases.append((F.message(9, F.bytes(0 as UInt32, 1 as UInt32) + [UInt8](repeating: 0, count: 32)), 0))
        for request: UInt32 in [12, 13, 14] {
            cases.append((F.message(request, F.bytes(0 as UInt64)), 0))
            cases.append((F.message(request, F.bytes(0 as UInt64)), 2))
            cases.append((F.message(request, F.bytes(256 as UInt64)), 1))
            cases.append((F.message(request, F.bytes(2 as UInt64)), 1))
            cases.append((F.message(request, F.bytes(512 as UInt64)), 1))
        }
        cases.append((F.message(12, F.bytes(256 as UInt64)), 0))
        for (number, (bytes, descriptors)) in cases.enumerated() {
            let harness = try Harness()
            try harness.front.sendRaw(bytes, [Int32](repeating: harness.memory.file.raw, count: descriptors))
            #expect(throws: SessionError.self, "case \(number)") { try harness.session.receive() }
            #expect(harness.device.log.isEmpty)
        }
    }

    /// Access to memory that its file no longer has ends a process.
    @Test func memoryThatCanShrinkIsRefused() throws {
        let raw = martlet_memfd_create("open", UInt32(MFD_CLOEXEC | MFD_ALLOW_SEALING))
        let file = OwnedDescriptor(owning: try check("memfd_create", "open", raw))
        try check("ftruncate", "open", ftruncate(file.raw, 4096))
        let table = F.bytes(1 as UInt32, 0 as UInt32, 0 as UInt64, 4096 as UInt64, 0 as UInt64, 0 as UInt64)
        let harness = try Harness()
        let error = #expect(throws: SessionError.self) { try harness.send(.setMemoryTable, table, [file.raw]) }
        #expect(error.map { "\($0)" }?.contains("without the seal F_SEAL_SHRINK") == true)
        try file.seal(F_SEAL_SHRINK)
        let next = try Harness()
        try next.send(.setMemoryTable, table, [file.raw])
        #expect(try next.ask(.getQueueNumber).count == 8)
    }

    @Test(.enabled(if: geteuid() == 0, "needs root")) func memoryInHugePagesIsTaken() throws {
        let file = try OwnedDescriptor.hugeMemory("martlet-test", size: 4 << 20)
        let table = F.bytes(1 as UInt32, 0 as UInt32, 0 as UInt64, 4096 as UInt64, 0 as UInt64, 0 as UInt64)
        let harness = try Harness()
        try harness.send(.setMemoryTable, table, [file.raw])
        #expect(try harness.ask(.getQueueNumber).count == 8)
    }

    @Test func aRunningRingIsNotChanged() throws {
        for change in 0..<4 {
            let harness = try Harness()
            try harness.bringUp()
            try harness.send(.setVringEnable, F.bytes(0 as UInt32, 1 as UInt32))
            #expect(throws: SessionError.self) {
                switch change {
                case 0: try harness.send(.setVringNumber, F.bytes(0 as UInt32, 64 as UInt32))
                case 1: try harness.send(.setVringBase, F.bytes(0 as UInt32, 5 as UInt32))
                case 2: try harness.send(.setFeatures, F.bytes(1 << 30 as UInt64))
                default:
                    try harness.send(
                        .setVringAddress, F.bytes(0 as UInt32, 0 as UInt32) + [UInt8](repeating: 0, count: 32))
                }
            }
        }
    }

    @Test func fuzz() throws {
        var random = Seeded(99)
        let end = ContinuousClock.now + .seconds(2)
        var ended = 0
        var messages = 0
        while ContinuousClock.now < end {
            let harness = try Harness()
            try harness.bringUp()
            let file = harness.memory.file.raw
            for _ in 0..<50 {
                messages += 1
                let request = UInt32.random(in: 0...26, using: &random)
                var payload: [UInt8]
                switch Int.random(in: 0..<4, using: &random) {
                case 0: payload = F.bytes(UInt64.random(in: 0...3, using: &random))
                case 1:
                    payload = F.bytes(
                        UInt32.random(in: 0...2, using: &random), UInt32.random(in: 0...300, using: &random))
                case 2: payload = (0..<40).map { _ in UInt8.random(in: 0...1, using: &random) }
                default:
                    payload = F.bytes(1 as UInt32, 0 as UInt32)
                    for _ in 0..<4 { payload += F.bytes(UInt64.random(in: 0...8, using: &random) << 12) }
                }
                if Int.random(in: 0..<8, using: &random) == 0 {
                    payload.removeLast(Int.random(in: 0...8, using: &random))
                }
                let count = [0, 0, 1, 1, 2].randomElement(using: &random) ?? 0
                do {
                    try harness.front.sendRaw(
                        F.message(request, payload, flags: 9), [Int32](repeating: file, count: count))
                    _ = try harness.session.receive()
                } catch is SessionError {
                    ended += 1
                    harness.session.close()
                    break
                }
            }
            #expect(harness.device.running.count <= 2)
        }
        #expect(messages > 200 && ended > 20)
    }
}
