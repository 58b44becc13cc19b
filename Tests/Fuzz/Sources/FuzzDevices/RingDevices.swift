import CLinux
import FuzzSupport
import Glibc
import LinuxSystem

@testable import Virtio

/// A device as `RingsTarget` drives it.
protocol RingDevice: AnyObject {
    var queues: [Virtqueue] { get }
    /// Serves a queue; whether there may be more.
    func process(_ queue: Int) throws(QueueError) -> Bool
    /// All queues run.
    func started(_ features: RingFeatures)
    /// The host's side of the device does something.
    func hostSide(_ input: inout Input)
    /// Undoes what an execution has done.
    func stop()
}

extension RingDevice {
    func started(_ features: RingFeatures) {}
    func hostSide(_ input: inout Input) {}
    func stop() { for queue in queues { queue.stop() } }
}

/// No device: the queue's own promises are checked.
final class PlainQueue: RingDevice {
    let queues = [Virtqueue(), Virtqueue()]
    private let scene: GuestScene
    init(_ scene: GuestScene) { self.scene = scene }

    func process(_ index: Int) throws(QueueError) -> Bool {
        let queue = queues[index]
        if index == 1 {
            let isFull = try queue.gather(4096, minimum: 12)
            scene.check(queue.gatheredBuffer, count: queue.gathered.reduce(0) { $0 + Int($1.count) })
            if isFull { queue.completeGathered(queue.chains(filledBy: 4096), written: 4096) }
            return isFull
        }
        guard try queue.next() else { return queue.armKick() }
        scene.check(queue.readable, count: Int(queue.readableBytes))
        scene.check(queue.writable, count: Int(queue.writableBytes))
        queue.complete(written: queue.writableBytes)
        _ = queue.needsInterrupt()
        return true
    }
}

/// The file device, whose server checks its buffers and copies from one to the other.
final class FilesRing: RingDevice {
    private let device: FileDevice
    var queues: [Virtqueue] { device.queues }

    init(_ scene: GuestScene) {
        // A server runs on the queue's thread only, here the only one.
        nonisolated(unsafe) let scene = scene
        device = FileDevice(tag: "fuzz") { readable, writable in
            scene.check(readable, count: readable.reduce(0) { $0 + $1.iov_len })
            scene.check(writable, count: writable.reduce(0) { $0 + $1.iov_len })
            var bytes = [UInt8](repeating: 0, count: 256)
            let count = Vectors.copyOut(readable, to: &bytes, count: bytes.count)
            return UInt32(Vectors.copyIn(bytes, count: count, to: writable))
        }
    }

    func process(_ queue: Int) throws(QueueError) -> Bool { try device.process(queue: queue) {} }
}

/// A disk of 64 KiB in memory.
final class BlockRing: RingDevice {
    private let device: BlockDevice
    var queues: [Virtqueue] { device.queues }

    /// - Parameter usesRing: the kernel performs the requests meanwhile.
    init(readOnly: Bool, usesRing: Bool) throws {
        let file = SharedDescriptor(try OwnedDescriptor.memory("disk", size: 64 << 10))
        device = BlockDevice(
            file: try BlockFile(file, readOnly: readOnly), readOnly: readOnly, id: "a disk",
            rings: [usesRing ? try IORing(capacity: RingPool.capacity) : nil])
    }

    func process(_ queue: Int) throws(QueueError) -> Bool { try device.process(queue: queue) {} }

    /// Requests may be in progress: in the guest's memory, which the next execution writes.
    func stop() {
        device.finish(queue: 0)
        queues[0].stop()
    }
}

/// A console whose output goes nowhere and whose input never ends.
final class ConsoleRings: RingDevice {
    private let device: ConsoleDevice
    var queues: [Virtqueue] { device.queues }

    init() throws {
        let loop = try EventLoop()
        let sink = SharedDescriptor(try OwnedDescriptor.open("/dev/null", O_RDWR))
        let source = SharedDescriptor(try OwnedDescriptor.open("/dev/zero", O_RDONLY))
        device = ConsoleDevice(
            output: try ConsoleOutput(sink, loop: loop), input: try ConsoleInput(source, loop: loop))
    }

    func process(_ queue: Int) throws(QueueError) -> Bool { try device.process(queue: queue) {} }
}

final class RNGRing: RingDevice {
    private let device = RNGDevice()
    var queues: [Virtqueue] { device.queues }
    func process(_ queue: Int) throws(QueueError) -> Bool { try device.process(queue: queue) {} }
}

/// A balloon that takes nothing, and looks at what it would take.
final class BalloonRings: RingDevice {
    private let device: BalloonDevice
    /// As many as there is room for rings of.
    var queues: [Virtqueue] { Array(device.queues.prefix(3)) }

    init(_ scene: GuestScene) {
        device = BalloonDevice { base, count in
            if UInt(bitPattern: base) % 4096 != 0 || count % 4096 != 0 { fatalError("not whole pages") }
            let range = iovec(iov_base: base, iov_len: count)
            withUnsafePointer(to: range) { scene.check(UnsafeBufferPointer(start: $0, count: 1), count: count) }
            return true
        }
    }

    func process(_ queue: Int) throws(QueueError) -> Bool { try device.process(queue: queue) {} }

    func stop() {
        for queue in queues.indices {
            device.prepareStop(queue: queue)
            queues[queue].stop()
        }
    }
}

/// A memory device whose region is no memory of the scene's. It gives nothing back, and looks at what it would give back.
final class MemoryRings: RingDevice {
    private static let count = 8
    private let device: MemoryDevice
    var queues: [Virtqueue] { device.queues }

    init() throws {
        let size = Self.count * Int(MemoryDevice.blockSize)
        let mapping = try Mapping(file: -1, count: size, flags: MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)
        let own = UInt(bitPattern: mapping.base)..<UInt(bitPattern: mapping.base) + UInt(size)
        let memory = try GuestMemory([MemoryRegion(guestAddress: 0, userAddress: 0, mapping: mapping)])
        device = MemoryDevice(region: 0..<UInt64(size), memory: memory) { base, count in
            let start = UInt(bitPattern: base)
            require(count > 0 && UInt(count) % UInt(MemoryDevice.blockSize) == 0, "\(count) bytes are no whole blocks")
            require(start >= own.lowerBound && start + UInt(count) <= own.upperBound, "not the region's memory")
            return true
        }
    }

    /// A request of blocks in the region, or just beyond it.
    static func request(_ input: inout Input) -> [UInt8] {
        let address = UInt64(input.byte() % UInt8(count + 2)) * MemoryDevice.blockSize
        return wire(UInt64(input.byte() % 5)) + wire(address) + wire(UInt64(input.byte() % UInt8(count + 2)))
    }

    func process(_ queue: Int) throws(QueueError) -> Bool {
        let before = device.pluggedBytes
        defer {
            require(
                device.pluggedBytes <= max(before, device.requestedBytes), "more is plugged than is requested")
            let ranges = device.blocks.pluggedRanges
            require(
                ranges.reduce(0) { $0 + $1.count } == device.blocks.pluggedCount, "the plugged blocks are not counted")
        }
        return try device.process(queue: queue) {}
    }

    func hostSide(_ input: inout Input) {
        device.requestedBytes = UInt64(input.byte()) % UInt64(Self.count + 1) * MemoryDevice.blockSize
    }

    func stop() {
        for queue in queues { queue.stop() }
        device.restore(requestedBytes: 0, MemoryBlocks(count: Self.count))
    }
}

/// A network interface whose tap is a socket that keeps frames apart.
final class NetRings: RingDevice {
    private let device: NetDevice
    private let wire: SharedDescriptor
    var queues: [Virtqueue] { device.queues }

    init() throws {
        let (tap, wire) = try SharedDescriptor.socketPair(SOCK_SEQPACKET)
        for end in [tap, wire] { try end.setNonBlocking(true) }
        self.wire = wire
        device = NetDevice(tap: [tap], hardwareAddress: [2, 0, 0, 0, 0, 7])
    }

    func started(_ features: RingFeatures) { device.setFeatures(features) }
    func process(_ queue: Int) throws(QueueError) -> Bool { try device.process(queue: queue) {} }

    func hostSide(_ input: inout Input) {
        let frame = [UInt8](repeating: 7, count: 12 + Int(input.word()))
        _ = send(wire.raw, frame, frame.count, Int32(MSG_NOSIGNAL))
    }

    func stop() {
        for queue in queues { queue.stop() }
        var byte: UInt8 = 0
        while recv(wire.raw, &byte, 1, Int32(MSG_DONTWAIT)) > 0 {}
        // The tap's side, from which a stopped device reads nothing any more: a guest's buffer takes a frame.
        while device.drop() {}
    }
}

extension NetDevice {
    /// Drops a frame that waits in the first tap; whether there was one.
    func drop() -> Bool {
        var byte: UInt8 = 0
        guard let tap = source(of: 0) else { return false }
        return recv(tap, &byte, 1, Int32(MSG_DONTWAIT)) > 0
    }
}

/// The vsock device with one connection that the host has asked for.
final class VsockRings: RingDevice {
    private let device: VsockDevice
    private var host: SharedDescriptor?
    var queues: [Virtqueue] { [device.receive, device.transmit] }

    init() throws {
        device = VsockDevice(
            guestCID: 7,
            effects: .init(
                watch: { _, _, _ in true }, finished: { _, _ in }, interrupt: { _ in }, broken: { _, _ in }))
    }

    func process(_ queue: Int) throws(QueueError) -> Bool {
        device.pump()
        return device.hasMore
    }

    func hostSide(_ input: inout Input) {
        guard let (ours, theirs) = try? SharedDescriptor.socketPair(SOCK_STREAM) else { return }
        host = ours
        device.connect(port: 1024, socket: theirs, token: 1, deadline: .max)
    }

    func stop() {
        device.reset()
        device.receive.stop()
        device.transmit.stop()
        host = nil
        // What still waits for the host's side to take bytes: it is gone.
        for port in Array(device.connections.keys) { device.socketReady(hostPort: port, [.hangUp, .writable]) }
        require(device.connectionCount == 0, "\(device.connectionCount) connections are left")
    }
}
