import Glibc
import LinuxSystem
import Synchronization
import Testing

@testable import Virtio

/// The network device with its thread, as a transport drives it.
@Suite(.timeLimit(.minutes(1))) struct NetTests {
    @Test func theConfigurationIsTheInterfaces() throws {
        let scene = try NetScene()
        #expect(scene.backend.configuration == [2, 0, 0, 0, 0, 7, 1, 0])
        #expect(scene.backend.queueCount == 2 && scene.backend.ownsConfiguration)
        #expect(scene.backend.features == 0x1_bba3)
    }

    @Test func framesLeaveAsTheyAre() throws {
        let scene = try NetScene()
        try scene.start()
        for count in [60, 1500, 9000, 65_000] {
            let bytes = [UInt8](repeating: 0, count: 12) + NetScene.frame(count)
            scene.memory.write(bytes, at: NetScene.payload)
            scene.transmit.ring.add([
                (NetScene.payload, 12, false), (NetScene.payload + 12, 40, false),
                (NetScene.payload + 52, UInt32(count - 40), false),
            ])
            scene.transmit.signal()
            #expect(scene.sent() == bytes)
            #expect(consume(scene.transmit.call))
            #expect(scene.transmit.ring.takeUsed().map(\.count) == [0])
            scene.transmit.ring.setUsedEvent(scene.transmit.ring.used)
        }
        #expect(scene.stop() == [0, 4])
    }

    /// A driver that has stopped because its ring is full gets an interrupt when there is room, however many frames the device
    /// took at once.
    @Test(arguments: [16, 47, 63]) func aDriverThatWaitsForRoomIsWoken(event: UInt16) throws {
        let scene = try NetScene()
        try scene.start()
        let ring = scene.transmit.ring
        scene.memory.write([UInt8](repeating: 0, count: 12) + NetScene.frame(60), at: NetScene.payload)
        // A first interrupt comes in any case.
        ring.add([(NetScene.payload, 72, false)])
        scene.transmit.signal()
        try #require(consume(scene.transmit.call))
        #expect(ring.takeUsed().count == 1)
        ring.setUsedEvent(1 + event)
        for _ in 0..<64 { ring.add([(NetScene.payload, 72, false)]) }
        scene.transmit.signal()
        #expect(consume(scene.transmit.call))
        _ = scene.stop()
    }

    @Test func aFrameTakesAsManyBuffersAsItNeeds() throws {
        let scene = try NetScene()
        try scene.start()
        for index: UInt64 in 0..<64 { scene.receive.ring.add([(NetScene.payload + 2048 * index, 1536, true)]) }
        scene.receive.signal()
        var first = 0
        for count in [60, 1524, 1525, 1536 * 4 - 12, 30_000] {
            let frame = NetScene.frame(count)
            #expect(scene.arrive(frame))
            #expect(consume(scene.receive.call))
            let used = scene.receive.ring.takeUsed()
            let buffers = (count + 12 + 1535) / 1536
            try #require(used.count == buffers)
            #expect(used.map(\.head) == (first..<first + buffers).map { UInt32($0) })
            #expect(used.reduce(0) { $0 + $1.count } == count + 12)
            let bytes = used.flatMap {
                scene.memory.read(Int($0.count), at: NetScene.payload + 2048 * UInt64($0.head))
            }
            #expect(Array(bytes[12...]) == frame)
            #expect(bytes[10...11] == [UInt8(buffers), 0])
            scene.receive.ring.setUsedEvent(scene.receive.ring.used)
            first += buffers
        }
        // What was held and not used is the driver's again.
        #expect(scene.stop() == [UInt16(first), 0])
    }

    @Test func withoutMergeableBuffersOneTakesAFrame() throws {
        let scene = try NetScene(features: 0)
        try scene.start()
        // The header's last word in a vector of its own.
        scene.receive.ring.add([
            (NetScene.payload, 10, true), (NetScene.payload + 0x100, 2, true), (NetScene.payload + 0x200, 1514, true),
        ])
        scene.receive.signal()
        #expect(scene.arrive(NetScene.frame(200)))
        #expect(consume(scene.receive.call))
        #expect(scene.receive.ring.takeUsed().map(\.count) == [212])
        #expect(scene.memory.read(2, at: NetScene.payload + 0x100) == [1, 0])
        #expect(scene.memory.read(200, at: NetScene.payload + 0x200) == NetScene.frame(200))
        _ = scene.stop()
    }

    /// Frames wait at the tap until there are buffers, and the device's thread sleeps meanwhile.
    @Test func framesWaitForBuffers() throws {
        let scene = try NetScene(size: 16)
        try scene.start()
        for index in 0..<20 { #expect(scene.arrive(NetScene.frame(100 + index))) }
        let before = threadTime()
        usleep(200_000)
        #expect(threadTime() - before < 100)
        var counts: [UInt32] = []
        for index in 0..<20 {
            // One alone is too little for the longest frame; all that the ring can hold is enough.
            for _ in 0..<(index == 0 ? 16 : 1) { scene.receive.ring.add([(NetScene.payload, 2048, true)]) }
            scene.receive.signal()
            #expect(consume(scene.receive.call))
            counts += scene.receive.ring.takeUsed().map(\.count)
            scene.receive.ring.setUsedEvent(scene.receive.ring.used)
        }
        #expect(counts == (0..<20).map { UInt32(112 + $0) })
        _ = scene.stop()
    }

    /// Milliseconds of processor time of this process.
    private func threadTime() -> Int { clock() / 1000 }
}

/// The network device with drivers that break the rules.
@Suite(.timeLimit(.minutes(1))) struct HostileNetTests {
    @Test func framesThatCanNotBeAreLost() throws {
        let scene = try NetScene()
        try scene.start()
        let lengths: [[UInt32]] = [[], [0], [1], [11], [12], [12, 0], [66_000, 66_000], [4, 4, 4]]
        for lengths in lengths {
            scene.transmit.ring.add(
                lengths.isEmpty
                    ? [(NetScene.payload, 100, true)]
                    : lengths.map { (address: NetScene.payload, count: $0, isWritable: false) })
        }
        scene.memory.write([UInt8](repeating: 0, count: 12) + NetScene.frame(60), at: NetScene.payload)
        scene.transmit.ring.add([(NetScene.payload, 72, false)])
        scene.transmit.signal()
        // The first that comes is the good one.
        #expect(scene.sent()?.count == 72)
        for _ in 0..<100
        where scene.transmit.ring.memory.load(
            UInt16.self, at: scene.transmit.ring.geometry.usedRing + 2) != UInt16(lengths.count + 1)
        { usleep(10_000) }
        #expect(scene.transmit.ring.takeUsed().allSatisfy { $0.count == 0 })
        #expect(scene.broken.current == nil)
        _ = scene.stop()
    }

    @Test(arguments: [0, 1, 2, 3, 4, 5]) func wrongReceiveBuffersBreakTheQueue(_ kind: Int) throws {
        let scene = try NetScene()
        try scene.start()
        let ring = scene.receive.ring
        for _ in 0..<4 { ring.add([(NetScene.payload, 2048, true)]) }
        switch kind {
        case 0: ring.add([(NetScene.payload, 2048, false)])
        case 1: ring.add([(NetScene.payload, 16, false), (NetScene.payload, 2048, true)])
        case 2: ring.add([(NetScene.payload, 11, true)])
        case 3: ring.add([(NetScene.payload, 0, true)])
        case 4: ring.add([(UInt64.max - 100, 2048, true)])
        default: ring.setAvailable(ring.available &+ 61)
        }
        scene.receive.signal()
        #expect(scene.broken.wait(timeout: .seconds(5))?.contains("network queue 0") == true)
        #expect(consume(scene.receive.error))
        _ = scene.arrive(NetScene.frame(60))
        usleep(20_000)
        #expect(ring.takeUsed().isEmpty)
        _ = scene.stop()
    }

    /// The other side is gone: no frame comes or goes, and nothing spins or breaks.
    @Test func theTapIsGone() throws {
        let scene = try NetScene()
        try scene.start()
        for _ in 0..<64 { scene.receive.ring.add([(NetScene.payload, 2048, true)]) }
        let changes = Atomic(0)
        scene.backend.onConfigurationChange { changes.add(1, ordering: .relaxed) }
        #expect(scene.backend.isLinkUp)
        shutdown(scene.wire.raw, Int32(SHUT_RDWR))
        scene.receive.signal()
        let before = clock()
        usleep(200_000)
        #expect(clock() - before < 100_000)
        #expect(scene.broken.current == nil && scene.receive.ring.takeUsed().isEmpty)
        // The driver is told once that the link is down, for good.
        #expect(changes.load(ordering: .relaxed) == 1)
        #expect(scene.backend.configuration == [2, 0, 0, 0, 0, 7, 0, 0])
        scene.backend.setLink(isUp: true)
        #expect(!scene.backend.isLinkUp && changes.load(ordering: .relaxed) == 1)
        _ = scene.stop()
    }

    @Test func theHostSetsTheLink() throws {
        let scene = try NetScene()
        let changes = Atomic(0)
        scene.backend.onConfigurationChange { changes.add(1, ordering: .relaxed) }
        for isUp in [false, false, true, true] {
            scene.backend.setLink(isUp: isUp)
            #expect(scene.backend.configuration == [2, 0, 0, 0, 0, 7, isUp ? 1 : 0, 0])
        }
        #expect(changes.load(ordering: .relaxed) == 2)
    }

    /// The rings begin anew, as often as the driver likes, whatever is in them.
    @Test func restartsWithFramesUnderWay() throws {
        let scene = try NetScene()
        for _ in 0..<50 {
            scene.receive.ring.setAvailable(0)
            scene.memory.store(UInt16(0), at: scene.receive.ring.geometry.usedRing + 2)
            scene.receive.ring.used = 0
            try scene.start()
            for _ in 0..<64 { scene.receive.ring.add([(NetScene.payload, 2048, true)]) }
            scene.receive.signal()
            for _ in 0..<5 { _ = scene.arrive(NetScene.frame(3000)) }
            let position = scene.stop()[0]
            #expect(position == scene.memory.load(UInt16.self, at: scene.receive.ring.geometry.usedRing + 2))
        }
        #expect(scene.broken.current == nil)
    }
}
