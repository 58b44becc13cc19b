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

    private final class Counter: Sendable {
        private let value = Atomic(0)
        var count: Int { value.load(ordering: .relaxed) }
        func add() { value.add(1, ordering: .relaxed) }
    }
}
