import Glibc
import LinuxSystem
import Testing

@testable import Virtio

/// The entropy device on an event loop that the test turns by hand.
@Suite struct RNGTests {
    private static let data = FakeMemory.base + 0x20000

    private final class Scene {
        let memory: FakeMemory
        let loop: EventLoop
        let queue: FakeQueue
        let backend: RNGBackend
        private(set) var broken: [String] = []

        init(size: UInt32 = 64) throws {
            memory = try FakeMemory()
            loop = try EventLoop()
            queue = try FakeQueue(0, memory, size: size)
            var report: (String) -> Void = { _ in }
            backend = RNGBackend(loop: loop) { report($0) }
            report = { [unowned self] in broken.append($0) }
        }

        /// What a driver finds used after its kick and so many rounds of the loop.
        func serve(rounds: Int = 1) throws -> [UInt32] {
            queue.signal()
            for _ in 0..<rounds { try loop.runOnce(timeoutMilliseconds: 0) }
            return queue.ring.takeUsed().map(\.count)
        }
    }

    @Test func fills() throws {
        let scene = try Scene()
        #expect(scene.backend.queueCount == 1 && scene.backend.features == 0 && scene.backend.configuration.isEmpty)
        scene.queue.ring.add([(Self.data, 64, true)])
        try scene.backend.start(queue: 0, scene.queue.setup)
        #expect(scene.queue.ring.takeUsed().map(\.count) == [64])
        #expect(consume(scene.queue.call, milliseconds: 0))
        let first = scene.memory.read(64, at: Self.data)
        scene.queue.ring.add([(Self.data, 64, true)])
        #expect(try scene.serve() == [64])
        #expect(scene.memory.read(64, at: Self.data) != first)
        // Scattered: each byte and no other.
        scene.memory.write([UInt8](repeating: 0, count: 8192), at: Self.data)
        scene.queue.ring.add([(Self.data, 1000, true), (Self.data + 2000, 1, true), (Self.data + 3000, 3000, true)])
        #expect(try scene.serve() == [4001])
        let bytes = scene.memory.read(8192, at: Self.data)
        #expect(bytes[1000..<2000].allSatisfy { $0 == 0 } && bytes[2001..<3000].allSatisfy { $0 == 0 })
        #expect(bytes[6000...].allSatisfy { $0 == 0 })
        // All zero by chance: once in 2^2400.
        #expect(bytes[700..<1000].contains { $0 != 0 } && bytes[5700..<6000].contains { $0 != 0 })
        #expect(scene.backend.stop(queue: 0) == 3)
    }

    /// However much a request asks for, it gets 64 KiB.
    @Test func requestsWithoutBound() throws {
        let scene = try Scene()
        try scene.backend.start(queue: 0, scene.queue.setup)
        let room = UInt32(scene.memory.count) - 0x20000
        scene.memory.write([UInt8](repeating: 0, count: Int(room)), at: Self.data)
        scene.queue.ring.add([(Self.data, room, true)])
        scene.queue.ring.add([(Self.data, 65535, true), (Self.data + 0x20000, 2, true), (Self.data, 100, true)])
        // Nearly 4 GiB, in 1000 buffers.
        let table = Self.data + 0x100000
        for index: UInt16 in 0..<1000 {
            scene.queue.ring.setDescriptor(
                index, FakeMemory.base + 0x10000, 4_000_000, index < 999 ? 3 : 2, next: index + 1, table: table)
        }
        scene.queue.ring.setDescriptor(60, table, 16 * 1000, FakeRing.indirect)
        #expect(try scene.serve() == [65536, 65536])
        let rest = scene.memory.read(0xf0000, at: Self.data + 0x10000)
        #expect(rest.enumerated().allSatisfy { $0 == 0x10000 || $1 == 0 })
        scene.queue.ring.publish(60)
        #expect(try scene.serve() == [65536])
    }

    @Test func requestsForNothing() throws {
        let scene = try Scene()
        try scene.backend.start(queue: 0, scene.queue.setup)
        scene.queue.ring.add([(Self.data, 64, false)])
        scene.queue.ring.add([(Self.data, 0, true)])
        scene.queue.ring.add([(Self.data, 64, false), (Self.data + 64, 1, true)])
        let before = scene.memory.read(64, at: Self.data)
        #expect(try scene.serve() == [0, 0, 1])
        #expect(scene.memory.read(64, at: Self.data) == before)
        #expect(scene.broken.isEmpty)
    }

    /// A full ring is served in several rounds, between which others get their turn, without another kick.
    @Test func othersGetTheirTurn() throws {
        let scene = try Scene()
        try scene.backend.start(queue: 0, scene.queue.setup)
        for _ in 0..<60 { scene.queue.ring.add([(Self.data, 1 << 20, true)]) }
        let first = try scene.serve()
        #expect(first.count < 60)
        var count = first.count
        var rounds = 0
        while count < 60, rounds < 60 {
            rounds += 1
            try scene.loop.runOnce(timeoutMilliseconds: 0)
            count += scene.queue.ring.takeUsed().count
        }
        #expect(count == 60)
        // Nothing is left over to be woken for.
        try scene.loop.runOnce(timeoutMilliseconds: 0)
        #expect(!consume(scene.queue.kick, milliseconds: 0))
    }

    @Test func brokenRings() throws {
        let scene = try Scene()
        try scene.backend.start(queue: 0, scene.queue.setup)
        scene.queue.ring.add([(Self.data, 64, true)])
        scene.queue.ring.add([(16, 64, true)])
        #expect(try scene.serve() == [64])
        #expect(scene.broken == ["rng queue 0: 64 bytes at 0x10 outside memory"])
        #expect(consume(scene.queue.error, milliseconds: 0))
        #expect(try scene.serve() == [])
        #expect(scene.broken.count == 1)
        // What was taken was the good one.
        #expect(scene.backend.stop(queue: 0) == 1)
        let fresh = try FakeQueue(0, scene.memory)
        fresh.ring.add([(Self.data, 10, true)])
        try scene.backend.start(queue: 0, fresh.setup)
        #expect(fresh.ring.takeUsed().map(\.count) == [10])
    }

    /// A kick descriptor that is always ready must not keep the loop busy.
    @Test func aKickThatIsNoEventfd() throws {
        let scene = try Scene()
        var setup = scene.queue.setup
        let (read, write) = try SharedDescriptor.pipe()
        setup.kick = read
        #expect(Glibc.write(write.raw, "x", 1) == 1)
        try scene.backend.start(queue: 0, setup)
        for _ in 0..<10 { try scene.loop.runOnce(timeoutMilliseconds: 0) }
        #expect(scene.broken == ["rng queue 0: the kick descriptor is not an eventfd"])
        _ = scene.backend.stop(queue: 0)
    }

    /// After a stop, or the end of the device, its memory is left alone, and so is a loop that goes on.
    @Test func afterTheEnd() throws {
        let scene = try Scene()
        try scene.backend.start(queue: 0, scene.queue.setup)
        for _ in 0..<60 { scene.queue.ring.add([(Self.data, 1 << 16, true)]) }
        _ = try scene.serve()
        #expect(scene.backend.stop(queue: 0) > 0)
        let before = scene.memory.read(scene.memory.count, at: FakeMemory.base)
        #expect(try scene.serve(rounds: 5) == [])
        #expect(scene.memory.read(scene.memory.count, at: FakeMemory.base) == before)
        let loop = try EventLoop()
        do {
            let backend = RNGBackend(loop: loop) { _ in }
            try backend.start(queue: 0, scene.queue.setup)
        }
        scene.queue.signal()
        try loop.runOnce(timeoutMilliseconds: 0)
    }

    @Test func fuzz() throws {
        let scene = try Scene()
        try scene.backend.start(queue: 0, scene.queue.setup)
        var random = Seeded(54)
        let end = ContinuousClock.now + .seconds(1)
        var (answers, breaks, requests, memory) = (0, 0, 0, 0)
        while ContinuousClock.now < end || requests < 3000 {
            requests += 1
            if requests == 1000 { memory = residentBytes() }
            let odd = Int.random(in: 0..<30, using: &random)
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                let address = odd == 0 ? random.next() : Self.data + UInt64.random(in: 0..<1 << 20, using: &random)
                let count = UInt32(
                    truncatingIfNeeded: random.next() >> UInt64.random(in: odd == 1 ? 32...63 : 46...63, using: &random)
                )
                scene.queue.ring.add([(address, count, odd != 2), (Self.data, 9, odd != 3)])
            }
            if odd == 4 { scene.queue.ring.setAvailable(UInt16(truncatingIfNeeded: random.next())) }
            let used = try scene.serve(rounds: 3)
            #expect(used.allSatisfy { $0 <= 65536 })
            answers += used.count
            guard breaks < scene.broken.count else { continue }
            breaks = scene.broken.count
            _ = scene.backend.stop(queue: 0)
            var setup = scene.queue.setup
            setup.position = scene.queue.ring.available
            try scene.backend.start(queue: 0, setup)
        }
        #expect(answers > 1000 && breaks > 50, "\(answers) answers, \(breaks) broken rings")
        #expect(residentBytes() < memory + 8 << 20)
    }
}
