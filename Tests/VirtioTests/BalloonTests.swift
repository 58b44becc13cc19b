import Glibc
import LinuxSystem
import Testing

@testable import Virtio

/// The memory balloon on an event loop that the test turns by hand, on real memory.
@Suite struct BalloonTests {
    private static let page: UInt64 = 4096
    /// Page numbers and statistics, and the memory that is given back.
    private static let list = FakeMemory.base + 0x30000
    private static let data = FakeMemory.base + 0x10_0000
    private static let (statistics, reporting): (UInt64, UInt64) = (1 << 1, 1 << 5)

    private final class Scene {
        let memory: FakeMemory
        let loop: EventLoop
        let backend: BalloonBackend
        let queues: [FakeQueue]
        private(set) var broken: [String] = []

        /// - Parameter features: of the device, that the driver has agreed to.
        init(features: UInt64 = statistics | reporting, reportsFreePages: Bool = true) throws {
            memory = try FakeMemory()
            loop = try EventLoop()
            var report: (String) -> Void = { _ in }
            backend = BalloonBackend(isPrivate: false, reportsFreePages: reportsFreePages, loop: loop) { report($0) }
            queues = try (0..<backend.queueCount).map { [memory] in try FakeQueue($0, memory, features: features) }
            report = { [unowned self] in broken.append($0) }
            for queue in queues { try backend.start(queue: queue.index, queue.setup) }
            memory.write([UInt8](repeating: 0xaa, count: 0x10_0000), at: data)
            memory.write([UInt8](repeating: 0, count: 4096), at: list)
        }

        /// Has the device serve a queue; what it has used.
        func serve(_ queue: Int, rounds: Int = 1) throws -> [UInt32] {
            queues[queue].signal()
            for _ in 0..<rounds { try loop.runOnce(timeoutMilliseconds: 0) }
            return queues[queue].ring.takeUsed().map(\.count)
        }

        /// Has the device take pages.
        func inflate(_ numbers: [UInt32], more: [UInt8] = []) throws -> [UInt32] {
            memory.write(numbers.flatMap(wire) + more, at: list)
            queues[0].ring.add([(list, UInt32(numbers.count * 4 + more.count), false)])
            return try serve(0)
        }

        /// The bytes of the file that are there.
        var blocks: Int {
            var facts = stat()
            fstat(memory.file.raw, &facts)
            return Int(facts.st_blocks) * 512
        }

        /// Whether each byte of a page is 0, or 0xaa.
        func isGone(_ page: UInt64) -> Bool? {
            let bytes = Set(memory.read(4096, at: data + page * 4096))
            return bytes == [0] ? true : bytes == [0xaa] ? false : nil
        }

        func gone(_ pages: Range<UInt64>) -> [UInt64] { pages.filter { isGone($0) != false } }
    }

    private static func number(_ page: UInt64) -> UInt32 { UInt32(data / 4096 + page) }

    @Test func whatTheDriverSees() throws {
        let scene = try Scene()
        #expect(scene.backend.features == 1 << 1 | 1 << 2 | 1 << 5 && scene.backend.queueCount == 4)
        let quiet = try Scene(features: Self.statistics, reportsFreePages: false)
        #expect(quiet.backend.features == 1 << 1 | 1 << 2 && quiet.backend.queueCount == 3)
        #expect(scene.backend.configuration == [0, 0, 0, 0, 0, 0, 0, 0])
        nonisolated(unsafe) var changes = 0
        scene.backend.onConfigurationChange { changes += 1 }
        scene.backend.setSize(bytes: 0x1_0203 << 12 | 0xfff)
        #expect(changes == 1 && scene.backend.configuration == [3, 2, 1, 0, 0, 0, 0, 0])
        scene.backend.writeConfiguration([4, 3, 2, 1], at: 4)
        for (bytes, offset): ([UInt8], Int) in [([9, 9, 9, 9], 0), ([9, 9], 4), ([9, 9, 9, 9], 8), ([9], 7)] {
            scene.backend.writeConfiguration(bytes, at: offset)
        }
        #expect(scene.backend.configuration == [3, 2, 1, 0, 4, 3, 2, 1])
        #expect(scene.backend.targetBytes == 0x1_0203 << 12 && scene.backend.actualBytes == 0x0102_0304 << 12)
        scene.backend.setSize(bytes: .max)
        #expect(scene.backend.savedState == [0xff, 0xff, 0xff, 0xff])
        try scene.backend.restore(savedState: [5, 1, 0, 0])
        #expect(scene.backend.targetBytes == 0x105 << 12 && scene.backend.savedState == [5, 1, 0, 0])
        for (state, reason): ([UInt8], String) in [
            ([], "target is cut off"), ([1, 2, 3], "target is cut off"), ([1, 2, 3, 4, 5], "1 bytes too many"),
        ] {
            #expect(throws: DeviceStateError("balloon, saved state: \(reason)")) {
                try scene.backend.restore(savedState: state)
            }
        }
        #expect(scene.backend.targetBytes == 0x105 << 12)
    }

    @Test func reportedMemoryGoesBack() throws {
        let scene = try Scene()
        let before = scene.blocks
        // Two ranges of whole pages, one of parts of two pages around a whole one, and one of parts alone.
        scene.queues[3].ring.add([
            (Self.data, 0x4000, true), (Self.data + 0x8000, 0x1000, true), (Self.data + 0x10800, 0x1f00, true),
            (Self.data + 0x20001, 0x1ffe, true), (Self.data + 0x30000, 0xfff, true),
        ])
        #expect(try scene.serve(3) == [0])
        #expect(consume(scene.queues[3].call, milliseconds: 0))
        // To look at them would bring them back.
        #expect(before - scene.blocks == 6 * 4096)
        #expect(scene.gone(0..<0x40) == [0, 1, 2, 3, 8, 17])
        #expect(scene.backend.reportedBytes == 6 * 4096)
        // It is memory again when it is used.
        scene.memory.write([1, 2, 3], at: Self.data)
        #expect(scene.memory.guest.withBytes(at: Self.data, count: 3) { Array($0) } == [1, 2, 3])
        #expect(scene.broken.isEmpty)
    }

    @Test func aReportThatIsTooLongIsCutOff() throws {
        // As if it were 4 GiB: nothing is done to memory here.
        var ranges: [Int] = []
        let device = BalloonDevice {
            ranges.append($1)
            return true
        }
        let memory = try FakeMemory()
        let queue = try FakeQueue(3, memory, features: Self.statistics | Self.reporting)
        try device.queues[3].start(
            queue.ring.geometry, memory: memory.guest, features: queue.setup.features, position: 0)
        let table = FakeMemory.base + 0x30000
        for index: UInt16 in 0..<1000 {
            queue.ring.setDescriptor(
                index, FakeMemory.base, 4 << 20, index < 999 ? 3 : 2, next: index + 1, table: table)
        }
        queue.ring.setDescriptor(60, table, 16 * 1000, FakeRing.indirect)
        queue.ring.publish(60)
        #expect(try device.process(queue: 3, interrupt: {}))
        #expect(ranges.reduce(0, +) == BalloonDevice.mostReported && device.reportedBytes == 1 << 30)
    }

    @Test func pagesAreTakenInAnyOrder() throws {
        let scene = try Scene()
        let before = scene.blocks
        #expect(try scene.inflate([9, 3, 4, 5, 3, 40, 8].map(Self.number)) == [0])
        #expect(before - scene.blocks == 6 * 4096)
        #expect(scene.gone(0..<64) == [3, 4, 5, 8, 9, 40])
        // Giving them up changes nothing: they are there when they are used.
        scene.memory.write([UInt8](repeating: 0xaa, count: 4096), at: Self.data + 3 * Self.page)
        scene.memory.write(wire(Self.number(3)), at: Self.list)
        scene.queues[1].ring.add([(Self.list, 4, false)])
        #expect(try scene.serve(1) == [0])
        #expect(scene.gone(0..<64) == [4, 5, 8, 9, 40])
        #expect(scene.backend.reportedBytes == 0 && scene.broken.isEmpty)
    }

    /// Neighbours are given back together.
    @Test func neighboursAreOneRange() throws {
        var ranges: [Int] = []
        let device = BalloonDevice {
            ranges.append($1)
            return true
        }
        let memory = try FakeMemory()
        let queue = try FakeQueue(0, memory)
        try device.queues[0].start(
            queue.ring.geometry, memory: memory.guest, features: queue.setup.features, position: 0)
        memory.write((0..<256).reversed().flatMap { wire(Self.number(UInt64($0))) }, at: Self.list)
        queue.ring.add([(Self.list, 1024, false)])
        _ = try device.process(queue: 0, interrupt: {})
        #expect(ranges == [256 * 4096])
    }

    /// Numbers of pages that the guest does not have, or that are no numbers, are passed over, and so are those beyond what one
    /// request may have.
    @Test func whatIsNoPageIsPassedOver() throws {
        let scene = try Scene()
        let memory = UInt32(FakeMemory.base / 4096)
        let end = memory + UInt32(scene.memory.count / 4096)
        #expect(
            try scene.inflate([0, memory - 1, end, .max, .max - 1, Self.number(1), 1 << 20], more: [1, 2, 3]) == [0])
        #expect(scene.gone(0..<64) == [1])
        #expect(try scene.inflate([]) == [0])
        #expect(try scene.inflate([], more: [7]) == [0])
        // The last page of memory, and one that is not there.
        #expect(try scene.inflate([end - 1, end]) == [0])
        let many = [UInt32](repeating: Self.number(2), count: BalloonDevice.mostNumbers) + [Self.number(3)]
        #expect(try scene.inflate(many) == [0])
        #expect(scene.gone(0..<64) == [1, 2])
        // In pieces, some of them in the middle of a number.
        scene.memory.write([Self.number(5), Self.number(6)].flatMap(wire), at: Self.list)
        scene.queues[0].ring.add([(Self.list, 3, false), (Self.list + 3, 2, false), (Self.list + 5, 3, false)])
        #expect(try scene.serve(0) == [0])
        #expect(scene.gone(0..<64) == [1, 2, 5, 6] && scene.broken.isEmpty)
    }

    /// A machine from a template: its own copies go, and the template's file stays what it is.
    @Test(arguments: [true, false]) func aTemplateStaysWhatItIs(isPrivate: Bool) throws {
        let size = 64 * 4096
        let template = try OwnedDescriptor.memory("template", size: Int64(size))
        let file = try Mapping(file: template.raw, count: size)
        memset(file.base, 0x55, size)
        let mapping = try Mapping(file: template.raw, count: size, flags: MAP_PRIVATE | MAP_NORESERVE)
        let own = mapping.base
        memset(own, 0xaa, 8 * 4096)
        // The rings are in memory that the test's driver sees too.
        let driver = try FakeMemory()
        let queue = try FakeQueue(0, driver)
        var setup = queue.setup
        setup.memory = try GuestMemory([
            MemoryRegion(
                guestAddress: FakeMemory.base, userAddress: 0,
                mapping: Mapping(file: driver.file.raw, count: driver.count)),
            MemoryRegion(guestAddress: 0x4000_0000, userAddress: 1 << 40, mapping: mapping),
        ])
        let loop = try EventLoop()
        let backend = BalloonBackend(isPrivate: isPrivate, reportsFreePages: true, loop: loop) { Issue.record("\($0)") }
        try backend.start(queue: 0, setup)
        driver.write((0..<4).flatMap { wire(UInt32(0x4_0000 + $0)) }, at: Self.list)
        queue.ring.add([(Self.list, 16, false)])
        queue.signal()
        try loop.runOnce(timeoutMilliseconds: 0)
        #expect(queue.ring.takeUsed().count == 1)
        func first(_ page: Int) -> UInt8 { own.load(fromByteOffset: page * 4096, as: UInt8.self) }
        // The kernel refuses to make a hole in a file by a private mapping.
        #expect(
            (0..<10).map(first) == (isPrivate ? [0x55, 0x55, 0x55, 0x55] : [0xaa, 0xaa, 0xaa, 0xaa]) + [
                0xaa, 0xaa, 0xaa, 0xaa, 0x55, 0x55,
            ])
        #expect(UnsafeRawBufferPointer(start: file.base, count: size).allSatisfy { $0 == 0x55 })
        _ = backend.stop(queue: 0)
    }

    // MARK: Statistics

    private static func entry(_ tag: UInt16, _ value: UInt64) -> [UInt8] { wire(tag) + wire(value) }

    private func tell(_ scene: Scene, _ bytes: [UInt8]) {
        scene.memory.write(bytes, at: Self.list)
        scene.queues[2].ring.add([(Self.list, UInt32(bytes.count), false)])
    }

    @Test func statisticsComeWhenTheyAreAskedFor() throws {
        let scene = try Scene()
        #expect(scene.backend.statistics() == nil)
        // The driver gives the first ones by itself, and the device keeps its buffer.
        tell(
            scene, Self.entry(4, 100) + Self.entry(99, 1) + Self.entry(6, .max) + Self.entry(7, 300) + Self.entry(5, 2))
        #expect(try scene.serve(2).isEmpty)
        #expect(scene.backend.statistics() == BalloonStatistics(free: 100, total: 2, available: .max, caches: 300))
        // It has the buffer again, and tells what is new.
        #expect(scene.queues[2].ring.takeUsed().map(\.count) == [0])
        #expect(consume(scene.queues[2].call, milliseconds: 0))
        tell(scene, Self.entry(4, 50) + [7, 0, 1])
        #expect(try scene.serve(2).isEmpty)
        #expect(scene.backend.statistics() == BalloonStatistics(free: 50))
        tell(scene, [])
        // The buffer that was given back by asking.
        #expect(try scene.serve(2) == [0])
        #expect(scene.backend.statistics() == BalloonStatistics())
        // What it holds is taken again after a stop.
        tell(scene, Self.entry(4, 1))
        _ = try scene.serve(2)
        #expect(scene.backend.stop(queue: 2) == 3)
        #expect(scene.broken.isEmpty)
    }

    /// A driver that gives the device more buffers than it wants.
    @Test func oneBufferIsHeldAtATime() throws {
        let scene = try Scene()
        for number in 0..<5 { tell(scene, Self.entry(4, UInt64(number))) }
        #expect(try scene.serve(2, rounds: 5).isEmpty)
        for taken in 1...4 {
            _ = scene.backend.statistics()
            #expect(scene.queues[2].ring.takeUsed().count == 1, "\(taken)")
        }
    }

    // MARK: Drivers that are odd, or hostile

    /// Without statistics the third queue is that of reports.
    @Test func queuesFollowTheFeatures() throws {
        let scene = try Scene(features: Self.reporting)
        scene.queues[2].ring.add([(Self.data, 0x1000, true)])
        #expect(try scene.serve(2) == [0])
        #expect(scene.gone(0..<8) == [0] && scene.backend.statistics() == nil)
        scene.queues[3].ring.add([(Self.data + 0x1000, 0x1000, true)])
        #expect(try scene.serve(3) == [0])
        #expect(scene.gone(0..<8) == [0])
    }

    @Test func aReportOutsideOfMemoryBreaksTheRing() throws {
        let scene = try Scene()
        scene.queues[3].ring.add([(Self.data, 0x1000, true), (0x4000_0000, 0x1000, true)])
        #expect(try scene.serve(3).isEmpty)
        #expect(scene.broken == ["balloon queue 3: 4096 bytes at 0x40000000 outside memory"])
        #expect(scene.gone(0..<8).isEmpty)
    }

    /// Nothing but the guest's own memory is given back, whatever it says.
    @Test func chanceIsNoDanger() throws {
        var random = Seeded(11)
        let memory = try FakeMemory()
        let range = memory.guest.withBytes(at: FakeMemory.base, count: memory.count) {
            UInt(bitPattern: $0.baseAddress)..<UInt(bitPattern: $0.baseAddress) + UInt(memory.count)
        }
        let own = try #require(range)
        var calls = 0
        let device = BalloonDevice { base, count in
            calls += 1
            let start = UInt(bitPattern: base)
            #expect(start % 4096 == 0 && count % 4096 == 0 && count > 0)
            #expect(start >= own.lowerBound && start + UInt(count) <= own.upperBound)
            return true
        }
        for round in 0..<2000 {
            let index = round % 4
            let queue = try FakeQueue(index, memory, features: Self.statistics | Self.reporting)
            try device.queues[index].start(
                queue.ring.geometry, memory: memory.guest, features: queue.setup.features, position: 0)
            let numbers = (0..<64).flatMap { _ in wire(UInt32.random(in: 0...0x600, using: &random)) }
            memory.write(numbers, at: Self.list)
            let ranges = (0..<Int.random(in: 1...8, using: &random)).map { _ in
                let inMemory = UInt64.random(in: 0..<UInt64(memory.count), using: &random)
                let address = index == 0 ? Self.list + inMemory % 256 : FakeMemory.base + inMemory
                return (address, UInt32.random(in: 0...0x2000, using: &random), index == 3)
            }
            queue.ring.add(ranges)
            _ = try? device.process(queue: index, interrupt: {})
            device.prepareStop(queue: index)
        }
        #expect(calls > 500)
    }
}
