import LinuxSystem
import Testing

@testable import Virtio

/// The memory device with drivers that are odd, or hostile, and with states that are not its own.
@Suite struct HostileMemoryTests {
    private static let block = MemoryScene.block
    private static let region = MemoryScene.region
    private static let error: UInt16 = 3

    /// PLUG, UNPLUG and STATE of blocks that are not in the region, not whole ones, or none at all.
    @Test(arguments: [0, 1, 3] as [UInt16]) func aRangeMustLieInTheRegion(type: UInt16) throws {
        let scene = try MemoryScene()
        if type == 1 { #expect(try scene.plug(0..<8) == 0) }
        let before = scene.plugged
        let (start, end) = (Self.region.lowerBound, Self.region.upperBound)
        for (address, count): (UInt64, UInt16) in [
            (start, 0), (start + 1, 1), (start + 4096, 1), (start + Self.block - 1, 1), (start - Self.block, 1),
            (start - Self.block, 2), (0, 1), (0, .max), (end, 1), (end, 0), (end - Self.block, 2), (start, 9),
            (start, .max), (end + Self.block, 1), (.max, 1), (.max - Self.block + 1, 1), (.max - Self.block + 1, .max),
            (1 << 63, 1), (start | 1 << 63, 1),
        ] {
            let reply = try scene.answer(MemoryScene.bytes(type, address, count))
            #expect(reply?.type == Self.error && reply?.state == 0, "\(count) at \(address)")
        }
        #expect(scene.plugged == before && scene.broken.isEmpty)
    }

    @Test func blocksMustBeInTheOtherState() throws {
        let scene = try MemoryScene(requested: 4)
        #expect(try scene.plug(2..<5) == 0)
        for blocks in [2..<3, 2..<5, 1..<3, 4..<6, 0..<8] { #expect(try scene.plug(blocks) == Self.error, "\(blocks)") }
        for blocks in [0..<1, 1..<3, 4..<6, 0..<8, 7..<8] {
            #expect(try scene.unplug(blocks) == Self.error, "\(blocks)")
        }
        #expect(scene.plugged == [2..<5])
        // None of them was given back by that.
        scene.fill(2)
        #expect(try scene.unplug(1..<3) == Self.error)
        #expect(scene.presentBytes == Int(Self.block))
    }

    @Test func unknownRequestsAreErrors() throws {
        let scene = try MemoryScene()
        for type: UInt16 in [4, 5, 0x100, 0x200, .max] {
            #expect(try scene.answer(MemoryScene.bytes(type, MemoryScene.address(0), 1))?.type == Self.error)
        }
        #expect(scene.plugged.isEmpty)
    }

    @Test func aShortRequestIsAnError() throws {
        let scene = try MemoryScene()
        #expect(try scene.plug(0..<8) == 0)
        let all = MemoryScene.bytes(2)
        for count in [0, 1, 2, 16, 18, 23] {
            #expect(try scene.send(Array(all.prefix(count))) == wire(Self.error) + [0, 0, 0, 0, 0, 0, 0, 0])
        }
        #expect(scene.plugged == [0..<8])
        // What is behind it is passed over.
        #expect(try scene.send(all + [1, 2, 3]) == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        #expect(scene.plugged.isEmpty)
    }

    /// A request whose answer has no room is given back undone.
    @Test func aShortResponseUndoesTheRequest() throws {
        let scene = try MemoryScene()
        for room: UInt32 in [0, 1, 2, 8, 9] {
            #expect(try scene.send(MemoryScene.bytes(0, MemoryScene.address(0), 1), room: room) == [])
        }
        scene.queue.ring.add([(MemoryScene.request, 24, false)])
        #expect(try scene.serve() == [])
        scene.queue.ring.add([(MemoryScene.response, 10, true)])
        #expect(try scene.serve() == wire(Self.error) + [0, 0, 0, 0, 0, 0, 0, 0])
        #expect(scene.plugged.isEmpty && scene.broken.isEmpty)
        // The rest of a longer one is left alone.
        let reply = try scene.send(MemoryScene.bytes(0, MemoryScene.address(0), 1), room: 64)
        #expect(reply?.count == 10 && scene.memory.read(54, at: MemoryScene.response + 10).allSatisfy { $0 == 0xee })
        #expect(scene.plugged == [0..<1])
    }

    @Test func buffersMayBeInPieces() throws {
        let scene = try MemoryScene()
        let (request, response) = (MemoryScene.request, MemoryScene.response)
        scene.memory.write(MemoryScene.bytes(0, MemoryScene.address(3), 2), at: request)
        scene.memory.write([UInt8](repeating: 0xee, count: 64), at: response)
        scene.queue.ring.add([
            (request, 1, false), (request + 1, 10, false), (request + 11, 0, false), (request + 11, 13, false),
            (response, 1, true), (response + 1, 8, true), (response + 9, 30, true),
        ])
        #expect(try scene.serve() == [UInt8](repeating: 0, count: 10))
        #expect(scene.plugged == [3..<5])
    }

    @Test func aBufferOutsideOfMemoryBreaksTheRing() throws {
        let scene = try MemoryScene()
        scene.queue.ring.add([(0x4000_0000, 24, false), (MemoryScene.response, 10, true)])
        #expect(try scene.serve() == nil)
        #expect(scene.broken == ["memory queue 0: 24 bytes at 0x40000000 outside memory"])
    }

    /// The answer's place is in the memory that goes back.
    @Test func theAnswerMayLieInWhatIsUnplugged() throws {
        let scene = try MemoryScene()
        #expect(try scene.plug(0..<1) == 0)
        scene.fill(0)
        scene.memory.write(MemoryScene.bytes(1, MemoryScene.address(0), 1), at: MemoryScene.request)
        scene.queue.ring.add([(MemoryScene.request, 24, false), (MemoryScene.address(0), 10, true)])
        #expect(try scene.serve() != nil)
        #expect(scene.memory.read(12, at: MemoryScene.address(0)) == [UInt8](repeating: 0, count: 12))
        #expect(scene.plugged.isEmpty && scene.presentBytes == 4096)
    }

    /// Requests of chance against a model: the device plugs no more than is requested, and gives back what was plugged.
    @Test func chanceIsNoDanger() throws {
        var random = Seeded(24)
        let scene = try MemoryScene()
        var model = Set<Int>()
        var done = 0
        for _ in 0..<10_000 {
            if Int.random(in: 0..<20, using: &random) == 0 {
                try scene.backend.request(bytes: UInt64.random(in: 0...8, using: &random) * Self.block)
            }
            let type = UInt16([0, 0, 0, 0, 1, 1, 1, 3, 4, 2].randomElement(using: &random) ?? 0)
            let first = Int.random(in: -1...8, using: &random)
            let count = Int.random(in: 0...4, using: &random)
            let address = UInt64(Int64(Self.region.lowerBound) + Int64(first) * Int64(Self.block))
            let answer = try scene.answer(MemoryScene.bytes(type, address, UInt16(count)))?.type
            let blocks = Set(first..<first + count)
            let isValid = count > 0 && first >= 0 && first + count <= 8
            let room = Int(scene.backend.requestedBytes / Self.block) - model.count
            switch type {
            case 0 where isValid && model.isDisjoint(with: blocks) && count > room: #expect(answer == 1)
            case 0 where isValid && model.isDisjoint(with: blocks):
                #expect(answer == 0)
                model.formUnion(blocks)
                done += 1
            case 1 where isValid && model.isSuperset(of: blocks):
                #expect(answer == 0)
                model.subtract(blocks)
                done += 1
            case 2:
                #expect(answer == 0)
                model = []
            case 3 where isValid: #expect(answer == 0)
            default: #expect(answer == Self.error)
            }
            #expect(Set(scene.plugged.flatMap { $0 }) == model)
            #expect(scene.backend.pluggedBytes == UInt64(model.count) * Self.block)
        }
        #expect(done > 500 && scene.broken.isEmpty, "\(done) requests were done")
    }

    // MARK: Saved states

    @Test func aSavedDeviceGoesOn() throws {
        let first = try MemoryScene(requested: 6)
        #expect(try first.plug(0..<2) == 0 && first.plug(5..<8) == 0)
        let state = first.backend.savedState
        #expect(state == wire(6 * Self.block) + wire(8 * Self.block) + wire(UInt32(1)) + [0b1110_0011])
        let second = try MemoryScene(requested: 0, starts: false)
        // A request that the device had not served when it was saved: it is about blocks that are plugged.
        second.memory.write(MemoryScene.bytes(1, MemoryScene.address(5), 2), at: MemoryScene.request)
        second.queue.ring.add([(MemoryScene.request, 24, false), (MemoryScene.response, 10, true)])
        try second.backend.start(queue: 0, second.queue.setup)
        try second.backend.restore(savedState: state)
        #expect(second.plugged == [0..<2, 5..<8] && second.backend.requestedBytes == 6 * Self.block)
        #expect(second.backend.configuration == first.backend.configuration)
        #expect(second.backend.savedState == state)
        try second.loop.runOnce(timeoutMilliseconds: 0)
        #expect(second.queue.ring.takeUsed().map(\.count) == [10])
        #expect(second.memory.load(UInt16.self, at: MemoryScene.response) == 0)
        #expect(second.plugged == [0..<2, 7..<8])
        #expect(try second.plug(2..<5) == 0 && second.plug(5..<6) == 1)
    }

    /// More is plugged than requested: the driver has not unplugged it yet.
    @Test func aDeviceThatIsToShrinkIsRestored() throws {
        let scene = try MemoryScene()
        try scene.backend.restore(savedState: wire(Self.block) + wire(8 * Self.block) + wire(UInt32(1)) + [0xff])
        #expect(scene.plugged == [0..<8] && scene.backend.requestedBytes == Self.block)
    }

    @Test func aStateThatDoesNotFitIsRefused() throws {
        let scene = try MemoryScene(requested: 3)
        #expect(try scene.plug(1..<3) == 0)
        let before = scene.backend.savedState
        let (usable, length) = (wire(8 * Self.block), wire(UInt32(1)))
        for (state, reason): ([UInt8], String) in [
            ([], "requested bytes is cut off"), ([1, 2, 3, 4], "requested bytes is cut off"),
            (wire(Self.block), "usable bytes is cut off"),
            (wire(Self.block) + usable, "plugged blocks is cut off"),
            (wire(Self.block) + usable + length, "plugged blocks is cut off"),
            (wire(Self.block) + usable + wire(UInt32.max) + [1], "plugged blocks is cut off"),
            (wire(Self.block) + usable + length + [1, 2], "1 bytes too many"),
            (wire(Self.block + 1) + usable + length + [1], "requested bytes: 2097153 is no multiple of 2097152"),
            (
                wire(9 * Self.block) + usable + length + [1],
                "requested bytes: 18874368 is more than the region's 16777216"
            ),
            (
                wire(Self.block) + wire(9 * Self.block) + length + [1],
                "usable region: requested bytes: 18874368 is more than the region's 16777216"
            ),
            (
                wire(Self.block) + wire(3 * Self.block) + length + [0b1000],
                "plugged blocks: some are not in the usable region of 6291456 bytes"
            ),
            (
                wire(Self.block) + usable + wire(UInt32(0)),
                "plugged blocks: a bitmap of 0 bytes is not one of 8 blocks"
            ),
            (
                wire(Self.block) + usable + wire(UInt32(2)) + [1, 0],
                "plugged blocks: a bitmap of 2 bytes is not one of 8 blocks"
            ),
        ] {
            #expect(throws: DeviceStateError("memory device, saved state: \(reason)")) {
                try scene.backend.restore(savedState: state)
            }
            #expect(scene.backend.savedState == before)
        }
    }

    /// What is beyond the usable region can be plugged when that has become larger.
    @Test func theUsableRegionGrows() throws {
        let scene = try MemoryScene(usable: 2)
        #expect(scene.backend.configuration[32..<40] == wire(2 * Self.block)[...])
        #expect(try scene.plug(1..<3) == 3 && scene.plug(0..<2) == 0)
        scene.backend.extend(usableBytes: 4 * Self.block)
        #expect(try scene.plug(2..<4) == 0 && scene.plug(4..<5) == 3)
        scene.backend.extend(usableBytes: Self.block)
        #expect(scene.backend.usableBytes == 4 * Self.block)
    }

    /// Devices without a state of their own, and those whose state is a number.
    @Test func otherDevicesRefuseOtherStates() throws {
        let loop = try EventLoop()
        let rng = RNGBackend(loop: loop) { _ in }
        #expect(rng.savedState.isEmpty)
        try rng.restore(savedState: [])
        #expect(throws: DeviceStateError("device, saved state: 1 bytes too many")) { try rng.restore(savedState: [0]) }
        let vsock = VsockBackend(guestCID: 3, loop: loop, finished: { _, _ in }, onBroken: { _ in })
        let port = vsock.device.nextPort
        #expect(vsock.savedState == wire(port))
        try vsock.restore(savedState: wire(port + 7))
        #expect(vsock.device.nextPort == port + 7)
        #expect(throws: DeviceStateError("vsock, saved state: next port is cut off")) {
            try vsock.restore(savedState: [1, 2])
        }
        #expect(vsock.device.nextPort == port + 7)
    }

    // MARK: The bitmap

    @Test func aBitmapHasNoBitBehindItsLastBlock() {
        #expect(MemoryBlocks(count: 11, bitmap: [0xff, 0x07])?.pluggedRanges == [0..<11])
        #expect(MemoryBlocks(count: 11, bitmap: [0x00, 0x04])?.pluggedRanges == [10..<11])
        #expect(MemoryBlocks(count: 11, bitmap: [0xff, 0x0f]) == nil)
        #expect(MemoryBlocks(count: 11, bitmap: [0xff, 0x80]) == nil)
        #expect(MemoryBlocks(count: 11, bitmap: [0xff]) == nil)
        #expect(MemoryBlocks(count: 11, bitmap: [0xff, 0x07, 0]) == nil)
        #expect(MemoryBlocks(count: 0, bitmap: [])?.pluggedRanges == [])
        #expect(MemoryBlocks(count: 16, bitmap: [0x81, 0xff])?.pluggedCount == 10)
    }

    /// The bitmap of the largest region is no larger than what a device may keep.
    @Test func theLargestRegionFits() {
        let blocks = MemoryBlocks(count: Int((64 << 30) / Self.block))
        #expect(blocks.bitmap.count == 4096)
    }
}
