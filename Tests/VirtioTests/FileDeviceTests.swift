import Glibc
import LinuxSystem
import Synchronization
import Testing

@testable import Virtio

/// The rings of the file device, with a server that echoes.
@Suite struct FileDeviceTests {
    private static let data = VirtqueueTests.data

    private func device(_ serve: @escaping FileDevice.Server) throws -> (FakeMemory, FakeRing, FileDevice) {
        let memory = try FakeMemory()
        let ring = FakeRing(memory, at: FakeMemory.base, size: 256)
        let device = FileDevice(tag: "martlet", serve: serve)
        try device.queues[1].start(ring.geometry, memory: memory.guest, features: .all, position: 0)
        return (memory, ring, device)
    }

    @Test func configuration() {
        let device = FileDevice(tag: "martlet", requestQueues: 3) { _, _ in 0 }
        #expect(device.configuration == Array("martlet".utf8) + [UInt8](repeating: 0, count: 29) + [3, 0, 0, 0])
        #expect(device.queues.count == 4)
        let long = FileDevice(tag: String(repeating: "x", count: 50)) { _, _ in 0 }
        #expect(long.configuration.count == 40)
    }

    @Test func requestsAndAnswers() throws {
        let (memory, ring, device) = try device { readable, writable in
            var bytes = [UInt8](repeating: 0, count: 64)
            let count = Vectors.copyOut(readable, to: &bytes, count: 64)
            return UInt32(Vectors.copyIn(bytes, count: count, to: writable))
        }
        memory.write(Array("question".utf8), at: Self.data)
        for _ in 0..<3 { ring.add([(Self.data, 8, false), (Self.data + 100, 3, true), (Self.data + 200, 100, true)]) }
        ring.add([(Self.data, 8, false)])
        ring.add([(Self.data + 300, 8, true)])
        var interrupts = 0
        #expect(try !device.process(queue: 1) { interrupts += 1 })
        #expect(ring.takeUsed().map(\.count) == [8, 8, 8, 0, 0])
        #expect(memory.read(3, at: Self.data + 100) == Array("que".utf8))
        #expect(memory.read(5, at: Self.data + 200) == Array("stion".utf8))
        #expect(interrupts >= 1)
        // A queue that does not run has nothing to do.
        #expect(try !device.process(queue: 0) {})
    }

    @Test func aBrokenRingStopsTheQueue() throws {
        let counter = Counter()
        let (_, ring, device) = try device { _, _ in
            counter.add()
            return 0
        }
        ring.add([(Self.data, 8, false)])
        ring.add([(0, 8, false)])
        ring.add([(Self.data, 8, false)])
        #expect(throws: QueueError.outsideMemory(address: 0, count: 8)) { try device.process(queue: 1) {} }
        #expect(counter.count == 1)
        #expect(try !device.process(queue: 1) {})
        #expect(counter.count == 1)
    }

    @Test func aBusyQueueLetsOthersHaveTheirTurn() throws {
        let counter = Counter()
        let (_, ring, device) = try device { _, _ in
            counter.add()
            return 0
        }
        for _ in 0..<200 { ring.add([(Self.data, 8, false)]) }
        #expect(try device.process(queue: 1) {})
        #expect(counter.count < 200)
        while try device.process(queue: 1, interrupt: {}) {}
        #expect(counter.count == 200)
    }

    /// The driver is reset while a request is served: its memory is not touched afterwards.
    @Test func aResetInTheMiddle() throws {
        let (memory, ring, device) = try device { _, _ in 8 }
        ring.add([(Self.data, 8, false), (Self.data + 100, 8, true)])
        let queue = device.queues[1]
        #expect(try queue.next())
        queue.stop()
        let before = memory.read(memory.count, at: FakeMemory.base)
        queue.complete(written: 8)
        #expect(try !device.process(queue: 1) {})
        #expect(memory.read(memory.count, at: FakeMemory.base) == before)
    }

    /// Requests without room for a reply (FORGET): no task waits for them, so the device does not interrupt for each.
    @Test func whatNobodyWaitsForIsAnnouncedLater() throws {
        let (memory, ring, device) = try device { _, writable in writable.isEmpty ? 0 : 8 }
        var interrupts = 0
        func serve() throws -> ServiceProgress { try device.serve(queue: 1) { interrupts += 1 } }
        #expect(try serve() == .nothing)
        // The driver wants an interrupt for each; the first one after a start is always sent.
        ring.add([(Self.data, 8, false), (Self.data + 100, 8, true)])
        #expect(try serve() == .done)
        #expect(interrupts == 1)
        for _ in 0..<5 { ring.add([(Self.data, 8, false)]) }
        ring.setUsedEvent(ring.used &+ 1)
        #expect(try serve() == .done)
        #expect(ring.takeUsed().count == 6, "the driver may look")
        #expect(interrupts == 1)
        device.flushInterrupt(queue: 1) { interrupts += 1 }
        device.flushInterrupt(queue: 1) { interrupts += 1 }
        #expect(interrupts == 2)
        // An answer that somebody waits for brings them along.
        ring.setUsedEvent(ring.used)
        ring.add([(Self.data, 8, false)])
        ring.add([(Self.data, 8, false), (Self.data + 100, 8, true)])
        #expect(try serve() == .done)
        #expect(interrupts == 3)
        device.flushInterrupt(queue: 1) { interrupts += 1 }
        #expect(interrupts == 3)
        // The driver must get its buffers back before the ring is full.
        _ = ring.takeUsed()
        ring.setUsedEvent(ring.used)
        for _ in 0..<UInt16(64) { ring.add([(Self.data, 8, false)]) }
        #expect(try serve() == .more)
        #expect(interrupts == 4)
        #expect(try serve() == .nothing)
        withExtendedLifetime(memory) {}
    }

    @Test func forgetsAreGatheredWhileTheGuestIsBusy() throws {
        let memory = try FakeMemory()
        let rings = (0..<2).map { FakeRing(memory, at: FakeMemory.base + 0x8000 * UInt64($0), size: 64) }
        let device = FileDevice(tag: "t") { _, _ in 0 }
        for (queue, ring) in zip(device.queues, rings) {
            try queue.start(ring.geometry, memory: memory.guest, features: .all, position: 0)
        }
        #expect(!device.arm(queue: 0, isIdle: false) && !device.arm(queue: 1, isIdle: false))
        #expect(rings[0].availableEvent == 15 && rings[1].availableEvent == 0)
        rings[0].add([(Self.data, 8, false)])
        #expect(!device.arm(queue: 0, isIdle: false))
        #expect(device.arm(queue: 0, isIdle: true), "a quiet guest would not wake the device otherwise")
        #expect(rings[0].availableEvent == 0)
    }

    private final class Counter: Sendable {
        private let value = Atomic(0)
        var count: Int { value.load(ordering: .relaxed) }
        func add() { value.add(1, ordering: .relaxed) }
    }
}
