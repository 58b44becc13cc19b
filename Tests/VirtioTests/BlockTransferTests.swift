import CLinux
import Glibc
import LinuxSystem
import Testing

@testable import Virtio

private let isPossible: Bool = {
    let obstacle = RingPool(count: 1, isShared: false).obstacle
    if let obstacle { print("disks with rings are not tested: \(obstacle)") }
    return obstacle == nil
}()

/// A disk with many requests in progress, by rings, with its threads.
@Suite(.timeLimit(.minutes(2)), .enabled(if: isPossible, "the host has no io_uring"))
struct BlockTransferTests {
    /// A disk with as many queues as rings, each with a driver.
    private final class Scene {
        static let block = 4096
        let memory: FakeMemory
        let backend: BlockBackend
        let queues: [FakeQueue]
        private var position: [UInt16]

        init(_ file: SharedDescriptor, queues count: Int, pool: RingPool? = nil) throws {
            memory = try FakeMemory(count: 16 << 20)
            backend = try BlockBackend(
                file: FakeDisk.reopen(file), readOnly: false, id: "disk", queues: count,
                rings: pool ?? RingPool(count: count, isShared: false)
            ) { Issue.record("broken: \($0)") }
            let (memory, features) = (memory, backend.features)
            queues = try (0..<count).map { try FakeQueue($0, memory, size: 256, features: features) }
            position = Array(repeating: 0, count: count)
        }

        func start() throws {
            for queue in queues {
                var setup = queue.setup
                setup.position = position[queue.index]
                try backend.start(queue: queue.index, setup)
            }
        }

        func stop() { for queue in queues { position[queue.index] = backend.stop(queue: queue.index) } }

        /// Where the data of a request is.
        func data(_ queue: Int, _ slot: Int) -> UInt64 {
            FakeMemory.base + 0x20_0000 + UInt64(queue * 64 + slot) * UInt64(Self.block)
        }

        private func header(_ queue: Int, _ slot: Int) -> UInt64 {
            FakeMemory.base + 0x10_0000 + UInt64(queue * 64 + slot) * 64
        }

        func status(_ queue: Int, _ slot: Int) -> UInt8 {
            memory.load(UInt8.self, at: header(queue, slot) + 32)
        }

        /// Puts a request for one block into a ring, without a kick.
        func add(_ type: UInt32, _ queue: Int, _ slot: Int, block: Int) {
            let header = header(queue, slot)
            memory.store(type, at: header)
            memory.store(UInt64(block * Self.block / 512), at: header + 8)
            memory.store(FakeDisk.untouched, at: header + 32)
            var buffers: [(UInt64, UInt32, Bool)] = [(header, 16, false)]
            if type < 2 { buffers.append((data(queue, slot), UInt32(Self.block), type == 0)) }
            queues[queue].ring.add(buffers + [(header + 32, 1, true)])
        }

        /// Kicks all queues, and waits until so many requests of each are done.
        func finish(_ count: Int) throws {
            for queue in queues {
                queue.ring.setUsedEvent(queue.ring.used)
                queue.signal()
            }
            for queue in queues {
                var done = 0
                let deadline = ContinuousClock.now + .seconds(30)
                while done < count, ContinuousClock.now < deadline {
                    done += queue.ring.takeUsed().count
                    usleep(200)
                }
                #expect(done == count, "queue \(queue.index)")
            }
        }
    }

    /// The bytes of a block: those of no two rounds or blocks are alike.
    private static func content(_ block: Int, _ round: Int) -> [UInt8] {
        var random = Seeded(UInt64(block) << 32 | UInt64(round))
        return (0..<Scene.block / 8).flatMap { _ in wire(random.next()) }
    }

    /// Every block is written by one of the queues, with up to 64 requests of each in progress, and read by the other.
    @Test(arguments: ["/var/tmp", "/dev/shm"]) func whatIsWrittenIsRead(directory: String) throws {
        let (blocks, depth) = (512, 64)
        let file = try FakeDisk.scratch(blocks * Scene.block, in: directory)
        let scene = try Scene(file, queues: 2)
        #expect(scene.backend.mode.usesRing && scene.backend.mode.queues == 2)
        #expect(scene.backend.features & 1 << 12 != 0)
        #expect(scene.backend.configuration[34] == 2)
        try scene.start()
        for round in 0..<4 {
            var order = Array(0..<blocks)
            var random = Seeded(UInt64(round))
            order.shuffle(using: &random)
            for start in stride(from: 0, to: blocks, by: 2 * depth) {
                for queue in 0..<2 {
                    for slot in 0..<depth {
                        let block = order[start + queue * depth + slot]
                        scene.memory.write(Self.content(block, round), at: scene.data(queue, slot))
                        scene.add(1, queue, slot, block: block)
                    }
                }
                try scene.finish(depth)
                for queue in 0..<2 {
                    for slot in 0..<depth {
                        #expect(scene.status(queue, slot) == 0)
                        scene.memory.write([UInt8](repeating: 0, count: Scene.block), at: scene.data(queue, slot))
                        scene.add(0, queue, slot, block: order[start + (1 - queue) * depth + slot])
                    }
                }
                try scene.finish(depth)
                for queue in 0..<2 {
                    for slot in 0..<depth {
                        let block = order[start + (1 - queue) * depth + slot]
                        let read = scene.memory.read(Scene.block, at: scene.data(queue, slot))
                        #expect(read == Self.content(block, round), "block \(block) in round \(round)")
                    }
                }
            }
        }
        scene.stop()
        var bytes = [UInt8](repeating: 0, count: blocks * Scene.block)
        #expect(pread(file.raw, &bytes, bytes.count, 0) == bytes.count)
        #expect(bytes == (0..<blocks).flatMap { Self.content($0, 3) })
    }

    /// Requests for neighbours in the file are performed together. One that fails, as the file has become shorter, fails alone.
    @Test(arguments: ["/var/tmp", "/dev/shm"]) func neighboursEachHaveTheirStatus(directory: String) throws {
        let (blocks, whole) = (64, 40)
        let file = try FakeDisk.scratch(blocks * Scene.block, in: directory)
        let scene = try Scene(file, queues: 1)
        try scene.start()
        for slot in 0..<blocks {
            scene.memory.write(Self.content(slot, 0), at: scene.data(0, slot))
            scene.add(1, 0, slot, block: slot)
        }
        try scene.finish(blocks)
        for slot in 0..<blocks { #expect(scene.status(0, slot) == 0) }
        #expect(ftruncate(file.raw, off_t(whole * Scene.block)) == 0)
        // Two runs, of which the second is not in the order of the requests' slots.
        for slot in 0..<blocks {
            scene.memory.write([UInt8](repeating: 0, count: Scene.block), at: scene.data(0, slot))
            scene.add(0, 0, slot, block: (slot + 32) % blocks)
        }
        try scene.finish(blocks)
        for slot in 0..<blocks {
            let block = (slot + 32) % blocks
            #expect(scene.status(0, slot) == (block < whole ? 0 : 1), "block \(block)")
            if block >= whole { continue }
            #expect(scene.memory.read(Scene.block, at: scene.data(0, slot)) == Self.content(block, 0), "block \(block)")
        }
        scene.stop()
    }

    /// A flush between writes, and requests that are performed at once, find their own status.
    @Test func requestsOfAllKindsTogether() throws {
        let file = try FakeDisk.scratch(64 * Scene.block)
        let scene = try Scene(file, queues: 1)
        try scene.start()
        for round in 0..<50 {
            for slot in 0..<40 {
                switch slot % 5 {
                case 0: scene.add(4, 0, slot, block: 0)
                case 1: scene.add(99, 0, slot, block: 0)
                case 2: scene.add(1, 0, slot, block: 64)
                case 3:
                    scene.memory.write(Self.content(slot, round), at: scene.data(0, slot))
                    scene.add(1, 0, slot, block: slot)
                default: scene.add(0, 0, slot, block: slot)
                }
            }
            try scene.finish(40)
            for slot in 0..<40 { #expect(scene.status(0, slot) == [0, 2, 1, 0, 0][slot % 5], "\(slot)") }
        }
        scene.stop()
        var bytes = [UInt8](repeating: 0, count: Scene.block)
        for slot in stride(from: 3, to: 40, by: 5) {
            #expect(pread(file.raw, &bytes, bytes.count, slot * Scene.block) == bytes.count)
            #expect(bytes == Self.content(slot, 49))
        }
    }

    /// A queue that is stopped has nothing in progress: what it has taken is answered, and the rest is there at its next start.
    @Test func aStopKeepsEveryRequest() throws {
        let file = try FakeDisk.scratch(64 * Scene.block)
        let scene = try Scene(file, queues: 2)
        for round in 0..<100 {
            for queue in 0..<2 { for slot in 0..<40 { scene.add(UInt32(slot % 2), queue, slot, block: slot) } }
            try scene.start()
            for queue in scene.queues { queue.signal() }
            usleep(UInt32(round % 10) * 50)
            scene.stop()
            let before = scene.queues.map { $0.ring.takeUsed().count }
            try scene.start()
            for (queue, count) in zip(scene.queues, before) {
                var done = count
                let deadline = ContinuousClock.now + .seconds(10)
                while done < 40, ContinuousClock.now < deadline { done += queue.ring.takeUsed().count }
                #expect(done == 40)
            }
            scene.stop()
        }
    }

    /// A guest that offers one chain again and again has no more in progress than the device allows, and each is answered.
    @Test func oneChainManyTimes() throws {
        let file = try FakeDisk.scratch(1 << 20)
        let scene = try Scene(file, queues: 1)
        scene.add(0, 0, 0, block: 1)
        let ring = scene.queues[0].ring
        for _ in 1..<256 { ring.publish(0) }
        try scene.start()
        try scene.finish(256)
        #expect(scene.status(0, 0) == 0)
        scene.stop()
    }

    /// Rings come back with a disk's end; a disk that finds none left serves its requests one after the other.
    @Test func ringsAreShared() throws {
        let pool = RingPool(count: 3, isShared: true)
        func disk() throws -> Scene { try Scene(FakeDisk.scratch(64 * Scene.block), queues: 2, pool: pool) }
        do {
            let first = try disk()
            #expect(first.backend.mode.queues == 2 && first.backend.mode.usesRing)
            let second = try disk()
            #expect(second.backend.mode == .init(usesRing: true, isDirect: first.backend.mode.isDirect, queues: 1))
            let third = try disk()
            #expect(third.backend.mode == .init(usesRing: false, isDirect: false, queues: 2))
            for slot in 0..<40 { third.add(0, slot % 2, slot, block: slot) }
            try third.start()
            try third.finish(20)
            third.stop()
        }
        #expect(try disk().backend.mode.queues == 2)
    }

    /// Direct I/O wants its data aligned; a guest need not do so.
    @Test func dataThatIsNotAligned() throws {
        let count = 64 * 512
        let disk = try FakeDisk(FakeDisk.scratch(count))
        for shift: UInt64 in [1, 3, 8, 256, 511] {
            #expect(
                try ask(disk, 0, [(FakeDisk.payload + shift, 513, true), (FakeDisk.payload + 4096, 511, true)])
                    == .done(1024))
            let read =
                disk.memory.read(513, at: FakeDisk.payload + shift)
                + disk.memory.read(511, at: FakeDisk.payload + 4096)
            #expect(read == FakeDisk.pattern(1024, from: 8 * 512))
        }
        let data = (0..<1024).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        disk.memory.write(data, at: FakeDisk.payload + 5)
        #expect(try ask(disk, 1, [(FakeDisk.payload + 5, 1024, false)]) == .done())
        var expected = FakeDisk.pattern(count)
        expected.replaceSubrange(8 * 512..<10 * 512, with: data)
        #expect(disk.content() == expected)
    }

    /// A request for the sectors from 8 on.
    private func ask(
        _ disk: FakeDisk, _ type: UInt32, _ data: [(UInt64, UInt32, Bool)]
    ) throws -> FakeDisk.Answer {
        disk.writeHeader(type, 8)
        return try disk.ask([(FakeDisk.header, 16, false)] + data + [(FakeDisk.status, 1, true)])
    }

    /// Without FLUSH a write is done when it is on stable storage: it is still done, and read again.
    @Test func writesOfADriverThatCannotFlush() throws {
        let disk = try FakeDisk(FakeDisk.scratch(64 * 512), features: 0)
        let data = [UInt8](repeating: 0x42, count: 4096)
        #expect(try disk.ask(1, 8, sending: data) == .done())
        #expect(try disk.ask(0, 8, room: 4096) == .done(4096))
        #expect(disk.memory.read(4096, at: FakeDisk.payload) == data)
    }
}
