import CLinux
import Glibc
import LinuxSystem
import Synchronization
import Testing

@testable import Virtio

/// The disk with its thread, as a transport drives it.
@Suite(.timeLimit(.minutes(1))) struct BlockBackendTests {
    /// A back end with a running queue. Its memory is let go of with it.
    private final class Scene {
        let memory: FakeMemory
        let queue: FakeQueue
        let backend: BlockBackend
        let broken: Promise<String>

        init(_ file: SharedDescriptor, rings: RingPool? = RingPool(count: 1, isShared: false)) throws {
            let broken = try Promise<String>()
            self.broken = broken
            memory = try FakeMemory()
            backend = try BlockBackend(
                file: FakeDisk.reopen(file), readOnly: false, id: "disk", rings: rings
            ) { broken.settle($0) }
            queue = try FakeQueue(0, memory, size: 128, features: backend.features)
        }

        /// Puts a request into the ring.
        func add(_ type: UInt32, sector: UInt64, count: UInt32, slot: UInt64 = 0) {
            let header = FakeMemory.base + 0x10000 + slot * 32
            memory.store(type, at: header)
            memory.store(sector, at: header + 8)
            queue.ring.add([
                (header, 16, false), (FakeMemory.base + 0x20000, count, type == 0), (header + 16, 1, true),
            ])
        }
    }

    @Test(arguments: [0, 1]) func requestsByKickAndInterrupt(rings: Int) throws {
        let file = try FakeDisk.scratch(1 << 20)
        let scene = try Scene(file, rings: RingPool(count: rings, isShared: false))
        #expect(scene.backend.queueCount == 1 && scene.backend.ownsConfiguration)
        // What is in the ring at the start is served without a kick.
        scene.add(0, sector: 1, count: 512)
        try scene.backend.start(queue: 0, scene.queue.setup)
        #expect(consume(scene.queue.call))
        #expect(scene.queue.ring.takeUsed().map(\.count) == [513])
        for round: UInt64 in 0..<200 {
            scene.queue.ring.setUsedEvent(scene.queue.ring.used)
            scene.add(0, sector: round, count: 1024)
            scene.queue.signal()
            guard consume(scene.queue.call), scene.queue.ring.takeUsed().map(\.count) == [1025] else {
                Issue.record("no answer in round \(round)")
                break
            }
            #expect(
                scene.memory.read(1024, at: FakeMemory.base + 0x20000)
                    == FakeDisk.pattern(1024, from: Int(round) * 512))
        }
        #expect(scene.backend.stop(queue: 0) == 201)
        scene.add(0, sector: 1, count: 512)
        scene.queue.signal()
        usleep(20_000)
        #expect(scene.queue.ring.takeUsed().isEmpty)
        // It goes on where it was.
        var setup = scene.queue.setup
        setup.position = 201
        try scene.backend.start(queue: 0, setup)
        #expect(consume(scene.queue.call))
        #expect(scene.queue.ring.takeUsed().map(\.count) == [513])
        _ = scene.backend.stop(queue: 0)
    }

    /// A stopped queue lets go of the guest's memory.
    @Test func memoryIsReleased() throws {
        let scene = try Scene(FakeDisk.scratch(4096))
        weak var released: GuestMemory?
        do {
            let own = try FakeMemory()
            released = own.guest
            let queue = try FakeQueue(0, own)
            try scene.backend.start(queue: 0, queue.setup)
            #expect(scene.backend.stop(queue: 0) == 0)
        }
        #expect(released == nil)
    }

    @Test func aBrokenRing() throws {
        let scene = try Scene(FakeDisk.scratch(4096))
        try scene.backend.start(queue: 0, scene.queue.setup)
        scene.queue.ring.publish(128)
        scene.queue.signal()
        #expect(consume(scene.queue.error))
        #expect(
            scene.broken.wait(timeout: .seconds(5))
                == "disk queue 0: available entry names descriptor 128 beyond the table")
        #expect(scene.backend.stop(queue: 0) == 0)
        // A reset driver begins anew.
        let fresh = try FakeQueue(0, scene.memory, size: 128, features: scene.backend.features)
        scene.memory.store(0 as UInt32, at: FakeMemory.base + 0x10000)
        scene.memory.store(0 as UInt64, at: FakeMemory.base + 0x10008)
        let buffers: [(UInt64, UInt32, Bool)] = [
            (FakeMemory.base + 0x10000, 16, false), (FakeMemory.base + 0x20000, 512, true),
            (FakeMemory.base + 0x10010, 1, true),
        ]
        fresh.ring.add(buffers)
        try scene.backend.start(queue: 0, fresh.setup)
        #expect(consume(fresh.call))
        #expect(fresh.ring.takeUsed().map(\.count) == [513])
        _ = scene.backend.stop(queue: 0)
    }

    @Test func ringsThatCannotStart() throws {
        let scene = try Scene(FakeDisk.scratch(4096))
        var setup = scene.queue.setup
        setup.geometry.size = 3
        #expect(throws: QueueError.badSize(3)) { try scene.backend.start(queue: 0, setup) }
        // A descriptor that can't be waited for.
        setup = scene.queue.setup
        setup.kick = try FakeDisk.scratch(512)
        #expect(throws: SystemError.self) { try scene.backend.start(queue: 0, setup) }
        try scene.backend.start(queue: 0, scene.queue.setup)
        #expect(scene.backend.stop(queue: 0) == 0)
    }

    /// The driver is reset, and its memory unmapped, while requests are in work: the device waits for those that it has
    /// begun, and touches nothing afterwards.
    @Test(arguments: [0, 1], ["/dev/shm", "/var/tmp"])
    func aResetInTheMiddleOfRequests(rings: Int, directory: String) throws {
        let file = try FakeDisk.scratch(8 << 20, in: directory)
        var served = 0
        var left = 0
        for round in 0..<20 {
            let scene = try Scene(file, rings: RingPool(count: rings, isShared: false))
            try scene.backend.start(queue: 0, scene.queue.setup)
            for slot: UInt64 in 0..<40 {
                scene.add(slot % 4 == 3 ? 1 : 0, sector: 8 * slot, count: 2 << 20, slot: slot)
            }
            scene.queue.signal()
            usleep(UInt32(round % 15) * 300)
            let position = scene.backend.stop(queue: 0)
            let used = scene.queue.ring.takeUsed()
            // What was taken was given back, and nothing else.
            #expect(used.count == Int(position) && used.allSatisfy { $0.count == 1 || $0.count == 2 << 20 + 1 })
            let before = scene.memory.read(scene.memory.count, at: FakeMemory.base)
            usleep(500)
            #expect(scene.memory.read(scene.memory.count, at: FakeMemory.base) == before)
            served += used.count
            left += 40 - used.count
        }
        #expect(served > 0 && left > 0, "\(served) served, \(left) left")
    }

    /// A guest that keeps the ring full doesn't keep the device from being stopped.
    @Test(arguments: [0, 1]) func aFloodThatNeverEnds(rings: Int) throws {
        let scene = try Scene(FakeDisk.scratch(8 << 20), rings: RingPool(count: rings, isShared: false))
        // One chain that is available for ever: the index is moved on as the device follows.
        scene.add(0, sector: 0, count: 1 << 20)
        let flood = try Flood(scene.memory, scene.queue)
        try flood.run()
        try scene.backend.start(queue: 0, scene.queue.setup)
        let used = scene.queue.ring.geometry.usedRing + 2
        let deadline = ContinuousClock.now + .seconds(30)
        // More than one turn of the device's.
        while scene.memory.load(UInt16.self, at: used) <= 32, ContinuousClock.now < deadline { usleep(1000) }
        #expect(scene.memory.load(UInt16.self, at: used) > 32)
        let start = ContinuousClock.now
        _ = scene.backend.stop(queue: 0)
        #expect(ContinuousClock.now - start < .seconds(2))
        flood.finish()
    }

    @Test func theThreadEndsWithTheDevice() throws {
        func threads() -> Int {
            guard let directory = opendir("/proc/self/task") else { return -1 }
            defer { closedir(directory) }
            var count = 0
            while let entry = readdir(directory) {
                let name = withUnsafeBytes(of: entry.pointee.d_name) {
                    String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
                }
                let file = open("/proc/self/task/\(name)/comm", O_RDONLY)
                var text = [UInt8](repeating: 0, count: 16)
                if file >= 0, read(file, &text, 16) > 0, text.starts(with: "disk ".utf8) { count += 1 }
                if file >= 0 { close(file) }
            }
            return count
        }
        let before = threads()
        do {
            let scenes = try (0..<5).map { _ in try Scene(FakeDisk.scratch(4096)) }
            for scene in scenes { try scene.backend.start(queue: 0, scene.queue.setup) }
            for scene in scenes { _ = scene.backend.stop(queue: 0) }
        }
        let deadline = ContinuousClock.now + .seconds(5)
        while threads() > before, ContinuousClock.now < deadline { usleep(1000) }
        #expect(threads() <= before)
    }

    /// Another processor of the guest, which makes the same chain available as fast as the device uses it.
    private final class Flood: Sendable {
        private let stopped = Atomic(false)
        private let ended: Promise<Void>
        private let available: UInt
        private let used: UInt
        private let size: UInt16
        private let kick: SharedDescriptor

        init(_ memory: FakeMemory, _ queue: FakeQueue) throws {
            let ring = queue.ring
            kick = queue.kick
            ended = try Promise<Void>()
            available = UInt(bitPattern: memory.pointer(ring.geometry.availableRing))
            used = UInt(bitPattern: memory.pointer(ring.geometry.usedRing))
            size = ring.size
            for slot in 0..<UInt64(size) { memory.store(0 as UInt16, at: ring.geometry.availableRing + 4 + 2 * slot) }
        }

        func run() throws {
            try startThread("flood") { [self] in
                while !stopped.load(ordering: .relaxed) {
                    guard let available = UnsafeMutableRawPointer(bitPattern: available),
                        let used = UnsafeMutableRawPointer(bitPattern: used)
                    else { break }
                    let done = used.load(fromByteOffset: 2, as: UInt16.self)
                    available.storeBytes(of: done &+ size, toByteOffset: 2, as: UInt16.self)
                    var one: UInt64 = 1
                    _ = write(kick.raw, &one, 8)
                }
                ended.settle(())
            }
        }

        func finish() {
            stopped.store(true, ordering: .relaxed)
            _ = ended.wait()
        }
    }
}
