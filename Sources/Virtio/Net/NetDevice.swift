import CLinux
import Glibc
import LinuxSystem

/// A network interface whose frames go to and come from a tap, straight between the guest's pages and the kernel
/// (virtio 1.2, 5.1). The headers before the frames are the tap's too: checksums and segmentation are left to whoever needs
/// them.
final class NetDevice: ThreadedDevice, @unchecked Sendable {
    static let receiveQueue = 0
    static let transmitQueue = 1
    /// Frames before the other direction gets its turn.
    private static let budget = 64

    let queues = [Virtqueue(), Virtqueue()]
    let hardwareAddress: [UInt8]
    private let tap: SharedDescriptor
    // What the thread of the queues alone touches.
    private var negotiated: NetProtocol.Features = []
    /// The driver must give buffers before a frame can be taken.
    private var isStarved = true
    /// The tap is no more.
    private var isCut = false

    init(tap: SharedDescriptor, hardwareAddress: [UInt8]) {
        self.tap = tap
        self.hardwareAddress = hardwareAddress
    }

    var features: UInt64 { NetProtocol.Features.all.rawValue }

    /// Hardware address, status (5.1.4).
    var configuration: [UInt8] {
        var bytes = hardwareAddress
        bytes.append(littleEndian: NetProtocol.linkUp)
        return bytes
    }

    func serve(queue: Int, interrupt: () -> Void) throws(QueueError) -> ServiceProgress {
        guard queues[queue].isRunning else { return .nothing }
        let progress = queue == Self.receiveQueue ? try receive(interrupt) : try transmit()
        // The driver's sockets wait for what was sent, too: they may have no more under way than so much.
        if progress != .nothing, queues[queue].needsInterrupt() { interrupt() }
        return progress
    }

    // MARK: From the guest

    private func transmit() throws(QueueError) -> ServiceProgress {
        let queue = queues[Self.transmitQueue]
        func sendHeld() -> UInt32 {
            send(queue)
            return 0
        }
        return try queue.take(budget: Self.budget, interrupt: {}, sendHeld)
    }

    /// A frame that the tap does not take is lost, as on a wire: it is too short or too long, its header is wrong, or there
    /// is no room.
    private func send(_ queue: Virtqueue) {
        let count = Int(queue.readableBytes)
        guard count > NetProtocol.headerSize, count <= NetProtocol.longestFrame, !isCut else { return }
        while writev(tap.raw, queue.vectors, Int32(queue.readableCount)) < 0, errno == EINTR {}
    }

    // MARK: To the guest

    private func receive(_ interrupt: () -> Void) throws(QueueError) -> ServiceProgress {
        let queue = queues[Self.receiveQueue]
        let isMergeable = negotiated.contains(.mergeableBuffers)
        let room = isMergeable ? NetProtocol.longestFrame : 1
        for received in 0..<Self.budget {
            isStarved = try !queue.gather(room, least: UInt32(NetProtocol.headerSize))
            if isStarved || isCut { return received == 0 ? .nothing : .done }
            let buffer = queue.gatheredBuffer
            let count = readv(tap.raw, buffer.baseAddress, Int32(buffer.count))
            if count < NetProtocol.headerSize {
                // Nothing there; or the tap's link is gone, and nothing will ever be.
                if count >= 0 || (errno != EAGAIN && errno != EINTR) { isCut = true }
                return received == 0 ? .nothing : .done
            }
            let chains = isMergeable ? queue.chains(filledBy: count) : 1
            Self.write(UInt16(chains), to: buffer)
            queue.completeGathered(chains, written: count)
            // At once: the guest takes the frames while others come. A guest that does already wants no interrupt.
            if queue.needsInterrupt() { interrupt() }
        }
        return .more
    }

    /// Writes into the header how many buffers the frame takes.
    private static func write(_ count: UInt16, to buffer: UnsafeBufferPointer<iovec>) {
        var skip = NetProtocol.bufferCountOffset
        var bytes = (UInt8(truncatingIfNeeded: count), UInt8(truncatingIfNeeded: count >> 8), 0)
        for vector in buffer where bytes.2 < 2 {
            guard let base = vector.iov_base else { continue }
            while bytes.2 < 2, skip < vector.iov_len {
                base.storeBytes(of: bytes.2 == 0 ? bytes.0 : bytes.1, toByteOffset: skip, as: UInt8.self)
                bytes.2 += 1
                skip += 1
            }
            skip -= vector.iov_len
        }
    }

    /// The driver has agreed on `features`: the tap does what it did not take on itself.
    func begin(_ features: RingFeatures) {
        negotiated = NetProtocol.Features(rawValue: features.rawValue)
        isStarved = true
        // It fails where the tap's link is gone, which reading will tell.
        _ = martlet_set_tap_offloads(tap.raw, negotiated.offloads)
    }

    // MARK: Waiting

    /// Of new buffers the driver need not tell while there are some.
    func arm(queue: Int, isIdle: Bool) -> Bool {
        queue == Self.receiveQueue && !isStarved ? false : armByDefault(queue: queue, isIdle: isIdle)
    }

    func source(of queue: Int) -> Int32? { queue == Self.receiveQueue ? tap.raw : nil }

    func waitsForSource(queue: Int) -> Bool { queue == Self.receiveQueue && !isStarved && !isCut }
}
