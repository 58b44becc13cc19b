import LinuxSystem
import Testing

@testable import Virtio

/// The persistent memory device on an event loop that the test turns by hand.
@Suite struct PmemTests {
    private static let request = FakeMemory.base + 0x20000
    private static let reply = request + 0x1000

    private final class Scene {
        let memory: FakeMemory
        let loop: EventLoop
        let queue: FakeQueue
        let backend: PmemBackend
        private(set) var broken: [String] = []

        init() throws {
            memory = try FakeMemory()
            loop = try EventLoop()
            queue = try FakeQueue(0, memory, size: 64)
            var report: (String) -> Void = { _ in }
            backend = PmemBackend(range: 0x1_4000_0000..<0x1_4100_0000, loop: loop) { report($0) }
            report = { [unowned self] in broken.append($0) }
            try backend.start(queue: 0, queue.setup)
        }

        /// The bytes used of a request, and what was written over -1; nil where it was not taken.
        func answer(_ type: [UInt8], room: UInt32 = 4) throws -> [UInt32]? {
            memory.write(type, at: PmemTests.request)
            memory.store(UInt32.max, at: PmemTests.reply)
            queue.ring.add([
                (PmemTests.request, UInt32(type.count), false), (PmemTests.reply, room, true),
            ])
            queue.signal()
            try loop.runOnce(timeoutMilliseconds: 0)
            return queue.ring.takeUsed().first.map { [$0.count, memory.load(UInt32.self, at: PmemTests.reply)] }
        }
    }

    @Test func startAndSize() throws {
        let backend = try Scene().backend
        #expect(backend.features == 0 && backend.queueCount == 1 && backend.ownsConfiguration)
        #expect(backend.configuration == [0, 0, 0, 0x40, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0])
    }

    @Test func aFlushIsDoneAndAllElseFails() throws {
        let scene = try Scene()
        #expect(try scene.answer([0, 0, 0, 0]) == [4, 0])
        #expect(consume(scene.queue.call, milliseconds: 0))
        #expect(try scene.answer([1, 0, 0, 0]) == [4, 1])
        #expect(try scene.answer([0, 0, 0, 1]) == [4, 1])
        #expect(try scene.answer([0, 0, 0]) == [4, 1])
        #expect(try scene.answer([0, 0, 0, 0, 0, 0], room: 64) == [4, 0])
        #expect(scene.broken.isEmpty)
        #expect(scene.backend.stop(queue: 0) == 5)
    }

    /// A reply that does not fit is not written in part.
    @Test func aChainWithoutRoom() throws {
        let scene = try Scene()
        for room: UInt32 in [0, 3] { #expect(try scene.answer([0, 0, 0, 0], room: room) == [0, .max]) }
        scene.queue.ring.add([(Self.request, 4, false)])
        scene.queue.signal()
        try scene.loop.runOnce(timeoutMilliseconds: 0)
        #expect(scene.queue.ring.takeUsed().map(\.count) == [0])
        #expect(scene.broken.isEmpty)
    }

    @Test func aBrokenRing() throws {
        let scene = try Scene()
        scene.queue.ring.add([(Self.request, 4, false), (0x1_4000_0000, 4, true)])
        scene.queue.signal()
        try scene.loop.runOnce(timeoutMilliseconds: 0)
        #expect(scene.broken == ["pmem queue 0: 4 bytes at 0x140000000 outside memory"])
    }
}
