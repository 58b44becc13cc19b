import CLinux
import FuzzSupport
import Glibc
import LinuxSystem

@testable import Virtio

/// The walk of the split virtqueue, with each device behind it.
///
/// Input: the device, features and sizes, then steps of the driver: descriptors, indices, data, kicks, restarts.
final class RingsTarget: FuzzTarget {
    private static let steps = 64
    private let scene: GuestScene
    private let devices: [any RingDevice]

    init() throws {
        scene = try GuestScene()
        devices = [
            PlainQueue(scene), FilesRing(scene), try BlockRing(readOnly: false, usesRing: false),
            try BlockRing(readOnly: true, usesRing: false),
            try ConsoleRings(), RNGRing(), try NetRings(), try VsockRings(),
            BalloonRings(scene), try MemoryRings(), try BlockRing(readOnly: false, usesRing: true),
            try BlockRing(readOnly: true, usesRing: true),
        ]
    }

    func run(_ input: inout Input) throws {
        scene.clear()
        let device = devices[input.below(devices.count)]
        defer { device.stop() }
        let features = RingFeatures.all.intersection(
            RingFeatures(rawValue: UInt64(input.byte()) << 28 | 1 << 32)
        ).union(RingFeatures(rawValue: deviceFeatures(input.byte())))
        var rings: [RingWriter] = []
        for (index, queue) in device.queues.enumerated() {
            let position = input.byte() > 250 ? input.word() : 0
            let ring = RingWriter(scene, index, order: input.below(8), position: position)
            rings.append(ring)
            try queue.start(ring.geometry, memory: scene.guest, features: features, position: position)
        }
        device.started(features)
        for _ in 0..<Self.steps where !input.isEmpty {
            let choice = input.byte()
            let index = Int(choice >> 5) % rings.count
            step(choice & 31, &input, device, index, &rings[index], features)
        }
        for index in rings.indices { kick(device, index) }
    }

    /// Receive buffers that are merged, and the queues of a balloon.
    private func deviceFeatures(_ byte: UInt8) -> UInt64 { (byte & 1 == 0 ? 1 << 15 : 0) | UInt64(byte & 0x22) }

    private func step(
        _ choice: UInt8, _ input: inout Input, _ device: any RingDevice, _ index: Int, _ ring: inout RingWriter,
        _ features: RingFeatures
    ) {
        switch choice {
        case 0..<14:
            // The usual: descriptors in a row, readable ones first.
            let place = UInt16(input.byte())
            let address = scene.address(&input)
            let count = choice < 12 ? UInt32(input.word() % 2048) : UInt32(truncatingIfNeeded: input.number64())
            ring.setDescriptor(place, address, count, UInt16(input.byte() & 7), next: place &+ 1)
        case 14: ring.setDescriptor(input.word(), input.number(), input.number(), input.word(), next: input.word())
        case 15:
            // A table of descriptors in memory, for indirect ones.
            var place = scene.address(&input) & ~15
            for next in 1...UInt16(1 + input.byte() % 4) {
                scene.store(scene.address(&input), at: place)
                scene.store(UInt32(input.word() % 4096), at: place + 8)
                scene.store(UInt16(input.byte() & 7), at: place + 12)
                scene.store(next, at: place + 14)
                place &+= 16
            }
        case 16..<22: ring.publish(UInt16(input.byte()))
        case 22: ring.publish(input.word())
        case 23: ring.setAvailable(input.word())
        case 24: ring.setUsedEvent(input.word())
        case 25: scene.write(input.take(Int(input.byte())), at: scene.address(&input))
        case 26:
            let block = wire(UInt32(input.byte() % 16)) + wire(UInt32(0)) + wire(input.number64())
            scene.write(block, at: scene.address(&input))
        case 29:
            // A whole request of a memory device: chance seldom makes one that follows from those before it.
            scene.write(MemoryRings.request(&input), at: GuestScene.data)
            ring.setDescriptor(0, GuestScene.data, 24, 1, next: 1)
            ring.setDescriptor(1, GuestScene.data + 64, UInt32(input.byte() % 16), 2, next: 0)
            ring.publish(0)
            kick(device, index)
        case 27:
            let size = UInt32(truncatingIfNeeded: input.number64())
            let geometry = QueueGeometry(
                size: size, descriptorTable: scene.address(&input), availableRing: scene.address(&input),
                usedRing: scene.address(&input))
            try? device.queues[index].start(
                geometry, memory: scene.guest, features: features, position: input.word())
        case 28: device.hostSide(&input)
        default: kick(device, index)
        }
    }

    /// A device goes on as long as its budget runs out; a guest that wrote into its own ring may keep it so.
    private func kick(_ device: any RingDevice, _ index: Int) {
        for _ in 0..<8 {
            do { if try !device.process(index) { return } } catch { return }
        }
    }
}

/// The bytes of a structure of the wire.
func wire<Value: BitwiseCopyable>(_ value: Value) -> [UInt8] { withUnsafeBytes(of: value) { Array($0) } }
