import Glibc
import LinuxSystem
import Synchronization
import Testing

@testable import Virtio

/// The queue against drivers that break the rules: each break has its name, and the queue stops.
@Suite struct HostileRingTests {
    static let data = VirtqueueTests.data

    /// Expects the next chain to break the queue, and the queue to stay broken.
    private func expectBreak(
        _ error: QueueError, features: RingFeatures = .all, size: UInt32 = 8,
        location: SourceLocation = #_sourceLocation, _ prepare: (FakeRing) -> Void
    ) throws {
        let (_, ring, queue) = try VirtqueueTests.queue(size: size, features: features)
        prepare(ring)
        #expect(throws: error, sourceLocation: location) { try queue.next() }
        #expect(queue.broken == error && !queue.isRunning, sourceLocation: location)
        #expect(throws: error, sourceLocation: location) { try queue.next() }
        #expect(!queue.armKick(), sourceLocation: location)
        queue.complete(written: 1)
        #expect(ring.takeUsed().isEmpty, sourceLocation: location)
    }

    @Test func indexBeyondTheQueue() throws {
        for head: UInt16 in [8, 9, 255, 65535] {
            try expectBreak(.headBeyondTable(head)) { $0.publish(head) }
            try expectBreak(.nextBeyondTable(head)) {
                $0.setDescriptor(0, Self.data, 1, FakeRing.next, next: head)
                $0.publish(0)
            }
        }
    }

    @Test func availableIndexAhead() throws {
        for ahead: UInt16 in [9, 100, 32768, 65535] {
            try expectBreak(.availableIndexAhead(by: ahead, size: 8)) { $0.setAvailable(ahead) }
        }
        let (_, ring, queue) = try VirtqueueTests.queue()
        ring.setAvailable(8)
        #expect(try queue.next())
    }

    @Test func loops() throws {
        try expectBreak(.loop) {
            $0.setDescriptor(3, Self.data, 1, FakeRing.next, next: 3)
            $0.publish(3)
        }
        try expectBreak(.loop) { ring in
            for index: UInt16 in 0..<8 { ring.setDescriptor(index, Self.data, 0, FakeRing.next, next: (index + 1) % 8) }
            ring.publish(0)
        }
        try expectBreak(.loop) { ring in
            ring.setDescriptor(0, Self.data, 32, FakeRing.indirect)
            ring.setDescriptor(0, Self.data, 0, FakeRing.next, next: 1, table: Self.data)
            ring.setDescriptor(1, Self.data, 0, FakeRing.next, next: 0, table: Self.data)
            ring.publish(0)
        }
    }

    @Test func indirectTables() throws {
        try expectBreak(.nestedIndirect) {
            $0.setDescriptor(0, Self.data, 32, FakeRing.indirect)
            $0.setDescriptor(0, Self.data + 64, 16, FakeRing.indirect, table: Self.data)
            $0.publish(0)
        }
        for count: UInt32 in [0, 1, 15, 17, 16 * 32769, .max] {
            try expectBreak(.indirectLength(count)) {
                $0.setDescriptor(0, Self.data, count, FakeRing.indirect)
                $0.publish(0)
            }
        }
        try expectBreak(.indirectWithNext) {
            $0.setDescriptor(0, Self.data, 16, FakeRing.indirect | FakeRing.next, next: 1)
            $0.publish(0)
        }
        try expectBreak(.indirectNotNegotiated, features: [.version1]) {
            $0.setDescriptor(0, Self.data, 16, FakeRing.indirect)
            $0.publish(0)
        }
        try expectBreak(.outsideMemory(address: 16, count: 16)) {
            $0.setDescriptor(0, 16, 16, FakeRing.indirect)
            $0.publish(0)
        }
        try expectBreak(.nextBeyondTable(2)) {
            $0.setDescriptor(0, Self.data, 32, FakeRing.indirect)
            $0.setDescriptor(0, Self.data, 1, FakeRing.next, next: 2, table: Self.data)
            $0.publish(0)
        }
        try expectBreak(.chainTooLong) { ring in
            let table = Self.data + 0x10000
            ring.setDescriptor(0, table, 16 * 2000, FakeRing.indirect)
            for index: UInt16 in 0..<2000 {
                ring.setDescriptor(index, Self.data, 0, FakeRing.next, next: index + 1, table: table)
            }
            ring.publish(0)
        }
    }

    @Test func readableAfterWritable() throws {
        for firstCount: UInt32 in [0, 1] {
            try expectBreak(.readableAfterWritable) {
                $0.add([(Self.data, firstCount, true), (Self.data, 1, false)])
            }
        }
    }

    @Test func outsideMemory() throws {
        let end = FakeMemory.base + 4 << 20
        for (address, count): (UInt64, UInt32) in [
            (0, 1), (FakeMemory.base - 1, 1), (FakeMemory.base - 1, 2), (end, 1), (end - 1, 2), (.max, 1), (.max, 2),
            (UInt64.max - 10, .max), (FakeMemory.base, .max),
        ] {
            for isWritable in [false, true] {
                try expectBreak(.outsideMemory(address: address, count: count)) {
                    $0.add([(address, count, isWritable)])
                }
            }
        }
        let (_, ring, queue) = try VirtqueueTests.queue()
        ring.add([(end - 1, 1, false), (FakeMemory.base, 4 << 20, true)])
        #expect(try queue.next())
    }

    @Test func chainsOfFourGigabytes() throws {
        let (memory, ring, queue) = try VirtqueueTests.queue(size: 1024)
        let table = Self.data
        // 1024 times the whole memory of 4 MiB is just 4 GiB.
        ring.setDescriptor(0, table, 16 * 1024, FakeRing.indirect)
        for index: UInt16 in 0..<1024 {
            ring.setDescriptor(
                index, FakeMemory.base, UInt32(memory.count), FakeRing.write | (index < 1023 ? FakeRing.next : 0),
                next: index + 1, table: table)
        }
        ring.publish(0)
        #expect(throws: QueueError.chainTooLarge) { try queue.next() }
    }

    @Test func zeroLengths() throws {
        let (_, ring, queue) = try VirtqueueTests.queue()
        // Any address will do for nothing.
        ring.add([(0, 0, false), (Self.data, 0, false), (.max, 0, true)])
        #expect(try queue.next())
        #expect(queue.readable.isEmpty && queue.writable.isEmpty)
        queue.complete(written: 5)
        #expect(ring.takeUsed().first?.count == 0)
        #expect(try !queue.next())
    }

    @Test func geometry() throws {
        let memory = try FakeMemory()
        let good = FakeRing(memory, at: FakeMemory.base, size: 8).geometry
        let queue = Virtqueue(maximumSize: 256)
        func start(_ change: (inout QueueGeometry) -> Void) throws {
            var geometry = good
            change(&geometry)
            try queue.start(geometry, memory: memory.guest, features: .all, position: 0)
        }
        for size: UInt32 in [0, 3, 7, 9, 257, 512, 32768, 65536, .max] {
            #expect(throws: QueueError.badSize(size)) { try start { $0.size = size } }
        }
        #expect(throws: QueueError.self) { try start { $0.descriptorTable += 8 } }
        #expect(throws: QueueError.self) { try start { $0.availableRing += 1 } }
        #expect(throws: QueueError.self) { try start { $0.usedRing += 2 } }
        for outside: UInt64 in [0, FakeMemory.base - 16, FakeMemory.base + (4 << 20) - 16, .max & ~15] {
            #expect(throws: QueueError.self) { try start { $0.descriptorTable = outside } }
            #expect(throws: QueueError.self) { try start { $0.availableRing = outside } }
            #expect(throws: QueueError.self) { try start { $0.usedRing = outside } }
        }
        #expect(!queue.isRunning)
        try start { _ in }
        #expect(queue.isRunning)
    }

    /// What was checked is what is used, whatever another processor of the guest writes meanwhile.
    @Test func descriptorsThatChangeUnderTheDevice() throws {
        let (memory, ring, queue) = try VirtqueueTests.queue(size: 4)
        let mapping = UInt(bitPattern: memory.mapping.base)
        let flipper = try Flipper(base: mapping)
        try flipper.run()
        defer { flipper.finish() }
        var random = Seeded(1)
        var broken = 0
        var good = 0
        let start = ContinuousClock.now
        let first = memory.guest.contiguous(at: FakeMemory.base, count: UInt64(memory.count))
        let lowest = try #require(first)
        // On a busy machine the other thread may be long in coming.
        while ContinuousClock.now < start + (good > 100 && broken > 100 ? .seconds(1) : .seconds(30)) {
            ring.publish(UInt16.random(in: 0..<4, using: &random))
            do {
                while try queue.next() {
                    good += 1
                    var total = 0
                    for vector in Array(queue.readable) + Array(queue.writable) {
                        let base = try #require(vector.iov_base)
                        #expect(base >= lowest && vector.iov_len <= memory.count)
                        #expect(base + vector.iov_len <= lowest + memory.count)
                        total += vector.iov_len
                    }
                    #expect(total == Int(queue.readableBytes) + Int(queue.writableBytes))
                    queue.complete(written: 0)
                }
            } catch {
                broken += 1
                try queue.start(ring.geometry, memory: memory.guest, features: .all, position: ring.available)
            }
        }
        #expect(good > 100 && broken > 100, "\(good) good and \(broken) broken chains")
    }

    @Test func fuzz() throws {
        let memory = try FakeMemory(count: 1 << 20)
        var random = Seeded(20_260_101)
        let end = ContinuousClock.now + .seconds(2)
        var rounds = 0
        var chains = 0
        while ContinuousClock.now < end {
            rounds += 1
            let size = UInt32(1) << UInt32.random(in: 0...6, using: &random)
            let ring = FakeRing(
                memory, at: FakeMemory.base, size: size, position: UInt16.random(in: 0...65535, using: &random))
            let table = FakeMemory.base + 0x8000
            for index in 0..<UInt16(size) { Self.randomDescriptor(ring, index, nil, table, &random) }
            for index in 0..<UInt16(16) { Self.randomDescriptor(ring, index, table, table, &random) }
            for slot in 0..<UInt64(size) {
                let head = UInt16.random(in: 0..<UInt16(size + (slot == 3 ? 2 : 0)), using: &random)
                memory.store(head, at: ring.geometry.availableRing + 4 + 2 * slot)
            }
            let ahead = UInt16.random(in: 0...UInt16(size + (rounds % 7 == 0 ? 1 : 0)), using: &random)
            let queue = Virtqueue()
            try queue.start(ring.geometry, memory: memory.guest, features: .all, position: ring.available)
            ring.setAvailable(ring.available &+ ahead)
            var steps = 0
            do {
                while try queue.next() {
                    steps += 1
                    #expect(queue.readable.count + queue.writable.count <= Virtqueue.maximumChain)
                    queue.complete(written: queue.writableBytes)
                }
            } catch {
                #expect(queue.broken == error)
            }
            #expect(steps <= Int(ahead))
            chains += steps
        }
        #expect(rounds > 100 && chains > 100)
    }

    private static func randomDescriptor(
        _ ring: FakeRing, _ index: UInt16, _ table: UInt64?, _ tables: UInt64, _ random: inout Seeded
    ) {
        let odd = Int.random(in: 0..<24, using: &random)
        var address = FakeMemory.base + UInt64.random(in: 0..<(1 << 19), using: &random)
        var count = UInt32.random(in: 0...4096, using: &random)
        var flags = UInt16.random(in: 0...3, using: &random)
        if odd == 0 { address = UInt64.random(in: 0...UInt64.max, using: &random) }
        if odd == 1 { count = UInt32.random(in: 0...UInt32.max, using: &random) }
        if odd == 2 || odd == 3 {
            (address, count, flags) = (tables, 16 * UInt32.random(in: 0...16, using: &random), 4)
        }
        if odd == 4 { flags = UInt16.random(in: 0...65535, using: &random) }
        ring.setDescriptor(index, address, count, flags, next: UInt16.random(in: 0..<17, using: &random), table: table)
    }
}

/// Another vCPU of the guest: it writes good and bad descriptors over each other until it is stopped.
private final class Flipper: Sendable {
    private let stopped = Atomic(false)
    private let ended: Promise<Void>
    private let base: UInt

    init(base: UInt) throws {
        self.base = base
        ended = try Promise<Void>()
    }

    func run() throws {
        try startThread("flipper") { [self] in
            var random = Seeded(2)
            while !stopped.load(ordering: .relaxed) {
                guard let table = UnsafeMutableRawPointer(bitPattern: base) else { return }
                let place = table + 16 * Int.random(in: 0..<4, using: &random)
                let value = UInt64.random(in: 0...UInt64.max, using: &random)
                switch value & 7 {
                case 0: place.storeBytes(of: value, as: UInt64.self)
                case 1: (place + 8).storeBytes(of: value, as: UInt64.self)
                case 2, 3: place.storeBytes(of: FakeMemory.base + value >> 44, as: UInt64.self)
                case 4: (place + 8).storeBytes(of: UInt64(64) | 2 << 32, as: UInt64.self)
                default: (place + 8).storeBytes(of: value >> 56 | 1 << 32 | (value & 3) << 48, as: UInt64.self)
                }
            }
            ended.settle(())
        }
    }

    func finish() {
        stopped.store(true, ordering: .relaxed)
        _ = ended.wait()
    }
}
