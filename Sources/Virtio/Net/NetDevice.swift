import CLinux
import Glibc
import LinuxSystem
import Synchronization

/// A network interface whose frames go to and come from a tap, straight between the guest's pages and the kernel
/// (virtio 1.2, 5.1). The headers before the frames are the tap's too: checksums and segmentation are left to whoever needs
/// them.
final class NetDevice: ThreadedDevice, @unchecked Sendable {
    /// Frames before the other direction gets its turn.
    private static let budget = 64

    /// A queue to the guest, at an even index, and one from it at the next; with the tap's queue that is theirs. The thread
    /// of the two alone touches it.
    private final class Pair {
        let tap: SharedDescriptor
        /// The driver must give buffers before a frame can be taken.
        var isStarved = true
        /// The tap is gone.
        var isCut = false
        /// How often it has joined and left. Odd: the driver wants it, and the tap sends it frames. The control queue's thread
        /// changes it.
        private let turns = Atomic<UInt>(1)
        var turn: UInt { turns.load(ordering: .acquiring) }
        var isActive: Bool { turn % 2 == 1 }

        init(_ tap: SharedDescriptor) { self.tap = tap }

        /// What the tap has for a queue that takes no part is lost, as with a cable that is pulled. Whoever reads meanwhile fails,
        /// and sees then that another turn has begun.
        func activate(_ joins: Bool) {
            if !joins { turns.wrappingAdd(1, ordering: .releasing) }
            _ = martlet_set_tap_queue(tap.raw, joins ? 1 : 0)
            if joins { turns.wrappingAdd(1, ordering: .releasing) }
        }
    }

    let queues: [Virtqueue]
    let hardwareAddress: [UInt8]
    /// Other pairs are active now: their threads must look at their queues again.
    var onPairsChange: (@Sendable () -> Void)?
    let link = NetLink()
    private let pairs: [Pair]
    private var negotiated: NetProtocol.Features = []
    /// Which queue it is, where there is one (5.1.2).
    private var controlQueue: Int?

    /// - Parameter tap: its queues, at least one.
    init(tap: [SharedDescriptor], hardwareAddress: [UInt8]) {
        pairs = tap.map { Pair($0) }
        queues = (0..<2 * pairs.count + (pairs.count > 1 ? 1 : 0)).map { _ in Virtqueue() }
        self.hardwareAddress = hardwareAddress
    }

    var features: UInt64 {
        let features = NetProtocol.Features.all
        return (pairs.count > 1 ? features.union([.controlQueue, .multiqueue]) : features).rawValue
    }

    /// Hardware address, status, and the number of pairs where there are several (5.1.4).
    var configuration: [UInt8] {
        var bytes = hardwareAddress
        bytes.append(littleEndian: link.isUp ? NetProtocol.linkUp : 0)
        if pairs.count > 1 { bytes.append(littleEndian: UInt16(pairs.count)) }
        return bytes
    }

    /// The tap of a pair is gone, and with it that of all.
    private func cut(_ pair: Pair) {
        pair.isCut = true
        link.loseTap()
    }

    func serve(queue: Int, interrupt: () -> Void) throws(QueueError) -> ServiceProgress {
        guard queues[queue].isRunning else { return .nothing }
        if queue == controlQueue {
            return try queues[queue].take(budget: Self.budget, interrupt: interrupt) { control(queues[queue]) }
        }
        guard let pair = pair(of: queue) else { return .nothing }
        let progress =
            Self.isReceiving(queue)
            ? try receive(queues[queue], pair, interrupt) : try transmit(queues[queue], pair, interrupt)
        // The driver's sockets wait for what was sent, too: they may have no more under way than so much.
        if progress != .nothing, queues[queue].needsInterrupt() { interrupt() }
        return progress
    }

    private static func isReceiving(_ queue: Int) -> Bool { queue % 2 == 0 }

    /// nil of the control queue.
    private func pair(of queue: Int) -> Pair? {
        queue != controlQueue && queue / 2 < pairs.count ? pairs[queue / 2] : nil
    }

    // MARK: How many pairs

    /// The driver has agreed on `features`: the tap does what it did not take on itself. One pair is active until the driver
    /// asks for more.
    func begin(_ features: RingFeatures) {
        negotiated = NetProtocol.Features(rawValue: features.rawValue)
        controlQueue =
            negotiated.contains(.controlQueue) ? negotiated.contains(.multiqueue) ? 2 * pairs.count : 2 : nil
        for pair in pairs {
            pair.isStarved = true
            // It fails where the tap's link is gone, which reading will tell.
            _ = martlet_set_tap_offloads(pair.tap.raw, negotiated.offloads)
        }
        activate(1)
    }

    private func activate(_ count: Int) {
        for (index, pair) in pairs.enumerated() where pair.isActive != (index < count) { pair.activate(index < count) }
        onPairsChange?()
    }

    /// Does what the held request of the control queue asks for; answers how many bytes it wrote.
    private func control(_ queue: Virtqueue) -> UInt32 {
        guard queue.writableBytes > 0 else { return 0 }
        var request = [UInt8](repeating: 0, count: 4)
        let count = Vectors.copyOut(queue.readable, to: &request, count: request.count)
        let wanted = Int(request[2]) | Int(request[3]) << 8
        var status = NetProtocol.controlFailed
        if count == request.count, Int(queue.readableBytes) == count, Array(request.prefix(2)) == NetProtocol.setPairs,
            (1...pairs.count).contains(wanted)
        {
            activate(wanted)
            status = NetProtocol.controlDone
        }
        return UInt32(Vectors.copyIn(&status, count: 1, to: queue.writable))
    }

    // MARK: From the guest

    private func transmit(
        _ queue: Virtqueue, _ pair: Pair, _ interrupt: () -> Void
    ) throws(QueueError) -> ServiceProgress {
        func sendHeld() -> UInt32 {
            Self.send(queue, pair)
            return 0
        }
        return try queue.take(budget: Self.budget, interrupt: interrupt, sendHeld)
    }

    /// A frame that the tap does not take is lost, as on a wire: it is too short or too long, its header is wrong, or there
    /// is no room.
    private static func send(_ queue: Virtqueue, _ pair: Pair) {
        let count = Int(queue.readableBytes)
        guard count > NetProtocol.headerSize, count <= NetProtocol.longestFrame, !pair.isCut else { return }
        while writev(pair.tap.raw, queue.vectors, Int32(queue.readableCount)) < 0, errno == EINTR {}
    }

    // MARK: To the guest

    private func receive(
        _ queue: Virtqueue, _ pair: Pair, _ interrupt: () -> Void
    ) throws(QueueError) -> ServiceProgress {
        let turn = pair.turn
        guard pair.isActive else { return .nothing }
        let isMergeable = negotiated.contains(.mergeableBuffers)
        let room = isMergeable ? NetProtocol.longestFrame : 1
        for received in 0..<Self.budget {
            pair.isStarved = try !queue.gather(room, least: UInt32(NetProtocol.headerSize))
            if pair.isStarved || pair.isCut { return received == 0 ? .nothing : .done }
            let buffer = queue.gatheredBuffer
            let count = readv(pair.tap.raw, buffer.baseAddress, Int32(buffer.count))
            if count < NetProtocol.headerSize {
                // Nothing there; or no part in it any more; or the tap's link is gone, and nothing will ever be.
                let isOver = errno == EBADFD ? pair.turn == turn : ![EAGAIN, EINTR].contains(errno)
                if count >= 0 || isOver { cut(pair) }
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

    // MARK: Waiting

    /// Of new buffers the driver need not tell while there are some.
    func arm(queue: Int, isIdle: Bool) -> Bool {
        if Self.isReceiving(queue), let pair = pair(of: queue),
            !pair.isStarved || !pair.isActive
        {
            return false
        }
        return armByDefault(queue: queue, isIdle: isIdle)
    }

    func source(of queue: Int) -> Int32? { Self.isReceiving(queue) ? pair(of: queue)?.tap.raw : nil }

    func waitsForSource(queue: Int) -> Bool {
        guard Self.isReceiving(queue), let pair = pair(of: queue) else { return false }
        return !pair.isStarved && !pair.isCut && pair.isActive
    }
}
