import Glibc
import LinuxSystem
import Testing

@testable import Virtio

/// The memory device as a driver of good will sees it (virtio 1.2, 5.15).
@Suite struct MemoryDeviceTests {
    private static let block = MemoryScene.block
    private static let (acknowledged, refused, busy, error): (UInt16, UInt16, UInt16, UInt16) = (0, 1, 2, 3)

    private func space(plugged: UInt64, requested: UInt64) -> [UInt8] {
        let size = 8 * Self.block
        return [Self.block, 0, MemoryScene.region.lowerBound, size, size, plugged * Self.block, requested * Self.block]
            .flatMap(wire)
    }

    @Test func whatTheDriverSees() throws {
        let scene = try MemoryScene(requested: 0)
        #expect(MemoryBackend.blockSize == 2 << 20)
        #expect(scene.backend.features == 0 && scene.backend.queueCount == 1 && scene.backend.ownsConfiguration)
        #expect(scene.backend.configuration == space(plugged: 0, requested: 0))
        #expect(scene.backend.configuration.count == 56)
        nonisolated(unsafe) var changes = 0
        scene.backend.onConfigurationChange { changes += 1 }
        try scene.backend.request(bytes: 3 * Self.block)
        #expect(changes == 1 && scene.backend.requestedBytes == 3 * Self.block)
        #expect(scene.backend.configuration == space(plugged: 0, requested: 3))
        // The driver only reads.
        scene.backend.writeConfiguration([9, 9, 9, 9], at: 48)
        #expect(scene.backend.configuration == space(plugged: 0, requested: 3))
        #expect(try scene.plug(2..<4) == Self.acknowledged)
        #expect(scene.backend.configuration == space(plugged: 2, requested: 3))
        #expect(changes == 1, "the driver is not interrupted for what it has plugged itself")
    }

    @Test func theHostAsksForWholeBlocksOfTheRegion() throws {
        let scene = try MemoryScene(requested: 2)
        nonisolated(unsafe) var changes = 0
        scene.backend.onConfigurationChange { changes += 1 }
        for bytes in [1, Self.block - 1, Self.block + 4096, .max] {
            #expect(throws: MemoryRequestError.noWholeBlocks(bytes)) { try scene.backend.request(bytes: bytes) }
        }
        for bytes in [9 * Self.block, UInt64.max - Self.block + 1] {
            #expect(throws: MemoryRequestError.beyondRegion(bytes, size: 8 * Self.block)) {
                try scene.backend.request(bytes: bytes)
            }
        }
        #expect(
            "\(MemoryRequestError.beyondRegion(4, size: 2))" == "requested bytes: 4 is more than the region's 2")
        #expect("\(MemoryRequestError.noWholeBlocks(4))" == "requested bytes: 4 is no multiple of 2097152")
        #expect(changes == 0 && scene.backend.requestedBytes == 2 * Self.block)
        try scene.backend.request(bytes: 8 * Self.block)
        try scene.backend.request(bytes: 0)
        #expect(changes == 2 && scene.backend.requestedBytes == 0)
    }

    @Test func blocksArePluggedUpToWhatIsRequested() throws {
        let scene = try MemoryScene(requested: 4)
        #expect(try scene.plug(1..<3) == Self.acknowledged)
        #expect(consume(scene.queue.call, milliseconds: 0))
        #expect(try scene.plug(5..<8) == Self.refused, "five blocks")
        #expect(scene.plugged == [1..<3])
        #expect(try scene.plug(3..<4) == Self.acknowledged)
        #expect(scene.plugged == [1..<4], "neighbours are one range")
        #expect(try scene.plug(7..<8) == Self.acknowledged)
        #expect(scene.backend.pluggedBytes == 4 * Self.block)
        #expect(
            scene.backend.pluggedRanges == [
                MemoryScene.address(1)..<MemoryScene.address(4), MemoryScene.address(7)..<MemoryScene.address(8),
            ])
        #expect(try scene.plug(0..<1) == Self.refused)
        // Less is asked for: what is plugged stays until the driver unplugs it.
        try scene.backend.request(bytes: Self.block)
        #expect(scene.backend.pluggedBytes == 4 * Self.block)
        #expect(try scene.unplug(2..<4) == Self.acknowledged && scene.plugged == [1..<2, 7..<8])
        #expect(try scene.plug(2..<3) == Self.refused)
        try scene.backend.request(bytes: 8 * Self.block)
        #expect(try scene.plug(2..<7) == Self.acknowledged && scene.plugged == [1..<8])
        #expect(scene.broken.isEmpty)
    }

    /// The driver that is told of another change reads what is plugged: it must be what it has been answered.
    @Test func theSpaceIsShownBeforeTheAnswer() throws {
        let scene = try MemoryScene()
        var shown: [(plugged: UInt64, answers: UInt16)] = []
        scene.backend.onQuietConfigurationChange { [unowned scene] in
            let used = scene.memory.load(UInt16.self, at: scene.queue.ring.geometry.usedRing + 2)
            shown.append((scene.backend.pluggedBytes / Self.block, used))
        }
        #expect(try scene.plug(0..<2) == Self.acknowledged)
        #expect(try scene.unplug(0..<1) == Self.acknowledged)
        #expect(try scene.plug(1..<2) == Self.error)
        #expect(try scene.unplugAll() == Self.acknowledged)
        #expect(shown.map(\.plugged) == [2, 1, 0] && shown.map(\.answers) == [0, 1, 3])
    }

    @Test func anUnpluggedBlockGoesBackToTheHost() throws {
        let scene = try MemoryScene()
        #expect(try scene.plug(0..<6) == Self.acknowledged)
        for block in 0..<6 { scene.fill(block) }
        #expect(scene.presentBytes == 6 * Int(Self.block))
        #expect(try scene.unplug(2..<5) == Self.acknowledged)
        #expect(scene.presentBytes == 3 * Int(Self.block) && scene.plugged == [0..<2, 5..<6])
        #expect((0..<6).map(scene.bytes) == [[0xaa], [0xaa], [0], [0], [0], [0xaa]])
        // It is memory again when it is plugged.
        #expect(try scene.plug(2..<3) == Self.acknowledged)
        scene.fill(2)
        #expect(scene.bytes(2) == [0xaa])
    }

    @Test func allBlocksGoBackTogether() throws {
        let scene = try MemoryScene(requested: 3)
        #expect(try scene.plug(0..<1) == Self.acknowledged)
        #expect(try scene.plug(4..<6) == Self.acknowledged)
        // One that is not plugged, but which the guest has written to all the same.
        for block in [0, 4, 5, 7] { scene.fill(block) }
        #expect(try scene.unplugAll() == Self.acknowledged)
        #expect(scene.presentBytes == 0 && scene.plugged.isEmpty && scene.backend.pluggedBytes == 0)
        #expect(scene.backend.configuration == space(plugged: 0, requested: 3))
        // There is nothing more to unplug, and nothing else in the request counts.
        #expect(try scene.answer(MemoryScene.bytes(2, .max, .max))?.type == Self.acknowledged)
        #expect(try scene.plug(0..<3) == Self.acknowledged)
    }

    @Test func theStateOfBlocksIsTold() throws {
        let (plugged, unplugged, mixed): (UInt16, UInt16, UInt16) = (0, 1, 2)
        let scene = try MemoryScene()
        #expect(try scene.plug(2..<4) == Self.acknowledged)
        for (blocks, state) in [
            (0..<2, unplugged), (2..<4, plugged), (3..<4, plugged), (1..<3, mixed), (3..<5, mixed), (4..<8, unplugged),
            (0..<8, mixed), (7..<8, unplugged),
        ] {
            let request = MemoryScene.bytes(3, MemoryScene.address(blocks.lowerBound), UInt16(blocks.count))
            let reply = try scene.answer(request)
            #expect(reply?.type == Self.acknowledged && reply?.state == state, "\(blocks)")
        }
        #expect(scene.plugged == [2..<4])
    }

    /// A reset of the device leaves memory as it is.
    @Test func aResetChangesNoBlock() throws {
        let scene = try MemoryScene()
        #expect(try scene.plug(1..<3) == Self.acknowledged)
        scene.fill(1)
        #expect(scene.backend.stop(queue: 0) == 1)
        let queue = try FakeQueue(0, scene.memory)
        try scene.backend.start(queue: 0, queue.setup)
        #expect(scene.plugged == [1..<3] && scene.presentBytes == Int(Self.block))
        #expect(scene.backend.configuration == space(plugged: 2, requested: 8))
    }

    // MARK: Giving back

    /// A device whose region lies in two mappings, the first with 3 blocks and the second with 5.
    private func makeDevice(
        _ region: Range<UInt64>? = nil, _ discard: @escaping (UnsafeMutableRawPointer, Int) -> Bool
    ) throws -> (device: MemoryDevice, bases: [UnsafeMutableRawPointer]) {
        let counts = [3, 5].map { Int(Self.block) * $0 }
        let start: UInt64 = 1 << 32
        var regions: [MemoryRegion] = []
        var address = start
        for count in counts {
            let mapping = try Mapping(file: -1, count: count, flags: MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)
            regions.append(try MemoryRegion(guestAddress: address, userAddress: address, mapping: mapping))
            address += UInt64(count)
        }
        let memory = try GuestMemory(regions)
        let bases = regions.compactMap { memory.piece(at: $0.guestAddress, atMost: 1)?.base }
        let device = MemoryDevice(region: region ?? start..<address, memory: memory, discard: discard)
        return (device, bases)
    }

    /// Serves one request on a ring of its own; the type of the answer.
    private func ask(
        _ device: MemoryDevice, _ type: UInt16, _ blocks: Range<Int> = 0..<0
    ) throws -> UInt16 {
        let memory = try FakeMemory()
        let queue = try FakeQueue(0, memory)
        try device.queues[0].start(
            queue.ring.geometry, memory: memory.guest, features: queue.setup.features, position: 0)
        let address = device.region.lowerBound + UInt64(blocks.lowerBound) * Self.block
        memory.write(MemoryScene.bytes(type, address, UInt16(blocks.count)), at: MemoryScene.request)
        queue.ring.add([(MemoryScene.request, 24, false), (MemoryScene.response, 10, true)])
        _ = try device.process(queue: 0, interrupt: {})
        #expect(queue.ring.takeUsed().map(\.count) == [10])
        return memory.load(UInt16.self, at: MemoryScene.response)
    }

    @Test func whatIsUnpluggedIsDiscardedAndNothingElse() throws {
        var ranges: [(base: UnsafeMutableRawPointer, count: Int)] = []
        let (device, bases) = try makeDevice {
            ranges.append(($0, $1))
            return true
        }
        device.requestedBytes = 8 * Self.block
        #expect(try ask(device, 0, 0..<8) == Self.acknowledged && ranges.isEmpty)
        #expect(try ask(device, 3, 0..<8) == Self.acknowledged && ranges.isEmpty)
        #expect(try ask(device, 1, 1..<2) == Self.acknowledged)
        #expect(ranges.map(\.base) == [bases[0] + Int(Self.block)] && ranges.map(\.count) == [Int(Self.block)])
        ranges = []
        // Where two mappings meet.
        #expect(try ask(device, 1, 2..<5) == Self.acknowledged)
        #expect(ranges.map(\.base) == [bases[0] + 2 * Int(Self.block), bases[1]])
        #expect(ranges.map(\.count) == [Int(Self.block), 2 * Int(Self.block)])
        ranges = []
        #expect(try ask(device, 1, 4..<6) == Self.error && ranges.isEmpty)
        #expect(try ask(device, 2) == Self.acknowledged)
        #expect(ranges.map(\.base) == bases && ranges.map(\.count) == [3, 5].map { $0 * Int(Self.block) })
    }

    @Test func whatDoesNotGoBackStaysPlugged() throws {
        var calls = 0
        let (device, _) = try makeDevice { _, _ in
            calls += 1
            return calls != 2
        }
        device.requestedBytes = 8 * Self.block
        #expect(try ask(device, 0, 0..<8) == Self.acknowledged)
        // The part behind the border fails, then all of it goes.
        #expect(try ask(device, 1, 2..<4) == Self.busy)
        #expect(device.blocks.pluggedCount == 8)
        #expect(try ask(device, 1, 2..<4) == Self.acknowledged)
        #expect(device.blocks.pluggedRanges == [0..<2, 4..<8])
        calls = 1
        // The driver tries that one again.
        #expect(try ask(device, 2) == Self.busy)
        #expect(device.blocks.pluggedRanges == [0..<2, 4..<8])
        #expect(try ask(device, 2) == Self.acknowledged && device.blocks.pluggedCount == 0)
    }

    /// A region that the guest's memory does not have.
    @Test func withoutMemoryNothingGoesBack() throws {
        let (device, _) = try makeDevice(1 << 40..<1 << 40 + 4 * Self.block) { _, _ in true }
        device.requestedBytes = 4 * Self.block
        #expect(try ask(device, 0, 0..<4) == Self.acknowledged)
        #expect(try ask(device, 1, 0..<4) == Self.busy)
        #expect(try ask(device, 2) == Self.busy)
        #expect(device.blocks.pluggedCount == 4)
    }

    /// A machine from a template: its own copies go, and the template's file stays what it is.
    @Test(arguments: [true, false]) func aTemplateStaysWhatItIs(isPrivate: Bool) throws {
        let size = 4 * Int(Self.block)
        let template = try OwnedDescriptor.memory("template", size: Int64(size))
        let file = try Mapping(file: template.raw, count: size)
        memset(file.base, 0x55, size)
        let mapping = try Mapping(file: template.raw, count: size, flags: MAP_PRIVATE | MAP_NORESERVE)
        let own = mapping.base
        memset(own, 0xaa, size)
        let start: UInt64 = 1 << 32
        let memory = try GuestMemory([MemoryRegion(guestAddress: start, userAddress: 0, mapping: mapping)])
        let loop = try EventLoop()
        let driver = try FakeMemory()
        let queue = try FakeQueue(0, driver)
        let backend = MemoryBackend(
            region: start..<start + UInt64(size), memory: memory, isPrivate: isPrivate, loop: loop
        ) { Issue.record("\($0)") }
        try backend.request(bytes: UInt64(size))
        try backend.start(queue: 0, queue.setup)
        driver.write(MemoryScene.bytes(0, start, 4), at: MemoryScene.request)
        driver.write(MemoryScene.bytes(1, start + Self.block, 2), at: MemoryScene.request + 64)
        for index in [0, 1] as [UInt64] {
            queue.ring.add([
                (MemoryScene.request + 64 * index, 24, false), (MemoryScene.response + 64 * index, 10, true),
            ])
        }
        queue.signal()
        for _ in 0..<3 { try loop.runOnce(timeoutMilliseconds: 0) }
        #expect(queue.ring.takeUsed().map(\.count) == [10, 10])
        // The kernel refuses to make a hole in a file by a private mapping.
        let answers = [0, 64].map { driver.load(UInt16.self, at: MemoryScene.response + $0) }
        #expect(answers == [Self.acknowledged, isPrivate ? Self.acknowledged : Self.busy])
        #expect(backend.pluggedBytes == (isPrivate ? 2 : 4) * Self.block)
        let first = (0..<4).map { own.load(fromByteOffset: $0 * Int(Self.block), as: UInt8.self) }
        #expect(first == (isPrivate ? [0xaa, 0x55, 0x55, 0xaa] : [0xaa, 0xaa, 0xaa, 0xaa]))
        #expect(
            stride(from: 0, to: size, by: 4096).allSatisfy {
                file.base.load(fromByteOffset: $0, as: UInt8.self) == 0x55
            })
        _ = backend.stop(queue: 0)
    }
}
