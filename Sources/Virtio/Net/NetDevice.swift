import CLinux
import Glibc
import LinuxSystem
import Synchronization

/// A virtio network device (virtio 1.2, 5.1) on top of a tap. Frames are read and written directly between the guest's pages
/// and the host's kernel. The tap uses the same header before each frame as virtio-net, so checksums and segmentation can stay
/// unfinished until someone needs them.
final class NetDevice: ThreadedDevice, @unchecked Sendable {
    /// Frames served before the other direction gets its turn.
    private static let budget = 64

    /// A receive queue (even index), the transmit queue after it, and their queue of the tap. Only the pair's thread uses it,
    /// except for `activate`.
    private final class Pair {
        let tap: SharedDescriptor
        /// The driver must add buffers before a frame can be received.
        var needsBuffers = true
        /// The tap's link is gone for good.
        var isDetached = false
        /// Counts activations and deactivations. An odd number means that the pair is active: the driver uses it and the tap
        /// sends it frames. The control queue's thread changes it.
        private let changes = Atomic<UInt>(1)
        var generation: UInt { changes.load(ordering: .acquiring) }
        var isActive: Bool { generation % 2 == 1 }

        init(_ tap: SharedDescriptor) { self.tap = tap }

        /// Attaches or detaches the pair's queue of the tap. Frames that wait in a detached queue are lost. A read at this
        /// moment fails; the reader sees from `generation` that the pair was detached, and that the tap still exists.
        func activate(_ isActive: Bool) {
            if !isActive { changes.wrappingAdd(1, ordering: .releasing) }
            _ = martlet_set_tap_queue(tap.raw, isActive ? 1 : 0)
            if isActive { changes.wrappingAdd(1, ordering: .releasing) }
        }
    }

    let queues: [Virtqueue]
    let hardwareAddress: [UInt8]
    /// Called when pairs were activated or deactivated: their threads must check their queues again.
    var onPairsChange: (@Sendable () -> Void)?
    let link = NetLink()
    private let pairs: [Pair]
    private var negotiated: NetProtocol.Features = []
    /// The index of the control queue, if there is one (5.1.2).
    private var controlQueue: Int?

    /// - Parameters:
    ///   - tap: its queues, at least one.
    ///   - hardwareAddress: 6 bytes.
    init(tap: [SharedDescriptor], hardwareAddress: [UInt8]) {
        pairs = tap.map { Pair($0) }
        queues = (0..<2 * pairs.count + (pairs.count > 1 ? 1 : 0)).map { _ in Virtqueue() }
        self.hardwareAddress = hardwareAddress
    }

    var features: UInt64 {
        let features = NetProtocol.Features.all
        return (pairs.count > 1 ? features.union([.controlQueue, .multiqueue]) : features).rawValue
    }

    /// The configuration space: hardware address, status, and the number of pairs when there are several (5.1.4).
    var configuration: [UInt8] {
        var bytes = hardwareAddress
        bytes.append(littleEndian: link.isUp ? NetProtocol.linkUp : 0)
        if pairs.count > 1 { bytes.append(littleEndian: UInt16(pairs.count)) }
        return bytes
    }

    /// The tap of a pair is gone, and with it that of all.
    private func detach(_ pair: Pair) {
        pair.isDetached = true
        link.loseTap()
    }

    func serve(queue: Int, interrupt: () -> Void) throws(QueueError) -> ServiceProgress {
        guard queues[queue].isRunning else { return .nothing }
        if queue == controlQueue {
            return try queues[queue].serveWithoutKick(budget: Self.budget, interrupt: interrupt) {
                control(queues[queue])
            }
        }
        guard let pair = pair(of: queue) else { return .nothing }
        let progress =
            Self.isReceiving(queue)
            ? try receive(queues[queue], pair, interrupt) : try transmit(queues[queue], pair, interrupt)
        // The driver waits for sent frames too: it limits the bytes that its sockets may have in flight.
        if progress != .nothing, queues[queue].needsInterrupt() { interrupt() }
        return progress
    }

    private static func isReceiving(_ queue: Int) -> Bool { queue % 2 == 0 }

    /// The pair of a queue; nil for the control queue.
    private func pair(of queue: Int) -> Pair? {
        queue != controlQueue && queue / 2 < pairs.count ? pairs[queue / 2] : nil
    }

    // MARK: Features and the number of pairs

    /// Sets the negotiated features. The tap performs the offloads that the driver did not accept. One pair is active until the
    /// driver asks for more.
    func setFeatures(_ features: RingFeatures) {
        negotiated = NetProtocol.Features(rawValue: features.rawValue)
        controlQueue =
            negotiated.contains(.controlQueue) ? negotiated.contains(.multiqueue) ? 2 * pairs.count : 2 : nil
        for pair in pairs {
            pair.needsBuffers = true
            // This fails when the tap's link is gone; a later read reports that.
            _ = martlet_set_tap_offloads(pair.tap.raw, negotiated.offloads)
        }
        activate(1)
    }

    /// How many pairs the driver uses.
    var activePairs: Int { pairs.count { $0.isActive } }

    /// Has the driver use so many pairs, where it may.
    func restore(activePairs count: Int) { if (1...pairs.count).contains(count) { activate(count) } }

    private func activate(_ count: Int) {
        for (index, pair) in pairs.enumerated() where pair.isActive != (index < count) { pair.activate(index < count) }
        onPairsChange?()
    }

    /// Performs the current request of the control queue.
    ///
    /// - Returns: the number of bytes written.
    private func control(_ queue: Virtqueue) -> UInt32 {
        guard queue.writableBytes > 0 else { return 0 }
        var request = [UInt8](repeating: 0, count: 4)
        let count = Vectors.copyOut(queue.readable, to: &request, count: request.count)
        let pairCount = Int(request[2]) | Int(request[3]) << 8
        var status = NetProtocol.controlFailed
        if count == request.count, Int(queue.readableBytes) == count, Array(request.prefix(2)) == NetProtocol.setPairs,
            (1...pairs.count).contains(pairCount)
        {
            activate(pairCount)
            status = NetProtocol.controlDone
        }
        return UInt32(Vectors.copyIn(&status, count: 1, to: queue.writable))
    }

    // MARK: From the guest

    private func transmit(
        _ queue: Virtqueue, _ pair: Pair, _ interrupt: () -> Void
    ) throws(QueueError) -> ServiceProgress {
        func sendCurrent() -> UInt32 {
            Self.send(queue, pair)
            return 0
        }
        return try queue.serveWithoutKick(budget: Self.budget, interrupt: interrupt, sendCurrent)
    }

    /// Sends the current frame. A frame that the tap does not accept is lost, as on a wire: because of its length, a wrong
    /// header, or a full queue.
    private static func send(_ queue: Virtqueue, _ pair: Pair) {
        let count = Int(queue.readableBytes)
        guard count > NetProtocol.headerSize, count <= NetProtocol.longestFrame, !pair.isDetached else { return }
        while writev(pair.tap.raw, queue.vectors, Int32(queue.readableCount)) < 0, errno == EINTR {}
    }

    // MARK: To the guest

    private func receive(
        _ queue: Virtqueue, _ pair: Pair, _ interrupt: () -> Void
    ) throws(QueueError) -> ServiceProgress {
        let generation = pair.generation
        guard pair.isActive else { return .nothing }
        let isMergeable = negotiated.contains(.mergeableBuffers)
        let room = isMergeable ? NetProtocol.longestFrame : 1
        for received in 0..<Self.budget {
            pair.needsBuffers = try !queue.gather(room, minimum: UInt32(NetProtocol.headerSize))
            if pair.needsBuffers || pair.isDetached { return received == 0 ? .nothing : .done }
            let buffer = queue.gatheredBuffer
            let count = readv(pair.tap.raw, buffer.baseAddress, Int32(buffer.count))
            if count < NetProtocol.headerSize {
                // There is no frame, the pair was deactivated, or the tap's link is gone for good.
                let isGone =
                    errno == EBADFD ? pair.generation == generation : ![EAGAIN, EINTR].contains(errno)
                if count >= 0 || isGone { detach(pair) }
                return received == 0 ? .nothing : .done
            }
            let chains = isMergeable ? queue.chains(filledBy: count) : 1
            Self.write(UInt16(chains), to: buffer)
            queue.completeGathered(chains, written: count)
            // Interrupt at once, so that the guest takes frames while others arrive. A guest that is already taking frames wants
            // no interrupt.
            if queue.needsInterrupt() { interrupt() }
        }
        return .more
    }

    /// Writes the number of buffers of a frame into its header.
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

    /// The driver need not kick for new receive buffers while there are some.
    func arm(queue: Int, isIdle: Bool) -> Bool {
        if Self.isReceiving(queue), let pair = pair(of: queue),
            !pair.needsBuffers || !pair.isActive
        {
            return false
        }
        return armByDefault(queue: queue, isIdle: isIdle)
    }

    func source(of queue: Int) -> Int32? { Self.isReceiving(queue) ? pair(of: queue)?.tap.raw : nil }

    func waitsForSource(queue: Int) -> Bool {
        guard Self.isReceiving(queue), let pair = pair(of: queue) else { return false }
        return !pair.needsBuffers && !pair.isDetached && pair.isActive
    }
}
