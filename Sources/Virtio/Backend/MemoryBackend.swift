import Glibc
public import LinuxSystem

/// Memory that is plugged and unplugged, as a transport drives it, on an event loop. All calls come from the loop's thread.
public final class MemoryBackend: BackendDevice {
    /// Bytes of a block: what is plugged and unplugged at once, and its alignment.
    public static let blockSize = MemoryDevice.blockSize

    private let device: MemoryDevice
    private let queues: LoopQueues<MemoryDevice>
    private var changed: (@Sendable () -> Void)?

    /// - Parameters:
    ///   - region: guest-physical addresses; bounds are multiples of `blockSize`. All of it is unplugged.
    ///   - usableBytes: the first part, of which blocks may be plugged, whole blocks; nil: all of it.
    ///   - memory: has the region.
    ///   - isPrivate: the region is mapped so that what the guest writes is in no file.
    ///   - onBroken: called with the reason when the driver broke the ring.
    public init(
        region: Range<UInt64>, usableBytes: UInt64? = nil, memory: GuestMemory, isPrivate: Bool, loop: EventLoop,
        onBroken: @escaping (String) -> Void
    ) {
        // As the balloon gives pages back.
        let advice = isPrivate ? MADV_DONTNEED : MADV_REMOVE
        device = MemoryDevice(region: region, memory: memory) { madvise($0, $1, advice) == 0 }
        device.usableBytes = usableBytes ?? device.usableBytes
        queues = LoopQueues("memory", device, loop: loop, onBroken: onBroken)
    }

    /// Neither VIRTIO_MEM_F_ACPI_PXM nor VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE: unplugged memory can be read.
    public var features: UInt64 { 0 }
    public var queueCount: Int { 1 }
    public var queueCounts: [QueueCounters.Counts] { device.queues.map(\.counters.counts) }
    public var ownsConfiguration: Bool { true }
    /// Block size, node and padding (which mean nothing), the region's address, size and usable size, and the bytes that are plugged and
    /// that are requested (virtio 1.2, 5.15.4).
    public var configuration: [UInt8] {
        [
            Self.blockSize, 0, device.region.lowerBound, device.size, device.usableBytes, device.pluggedBytes,
            device.requestedBytes,
        ].flatMap { number in withUnsafeBytes(of: number.littleEndian, Array.init) }
    }

    public func onConfigurationChange(_ changed: @escaping @Sendable () -> Void) { self.changed = changed }
    /// The driver is not to be told of what it has plugged (5.15.4.2), and reads it when it is told of another change.
    public func onQuietConfigurationChange(_ show: @escaping () -> Void) { device.onChange = show }

    /// A request that is in the queue already is served in the loop's next round: it must find what is restored.
    public func start(queue: Int, _ setup: QueueSetup) throws {
        try queues.start(queue: queue, setup, servesAtOnce: false)
    }

    public func stop(queue: Int) -> UInt16 { queues.stop(queue: queue) }

    // MARK: What is saved

    /// The bytes that are requested, and the bitmap of plugged blocks.
    public var savedState: [UInt8] {
        var state = StateWriter()
        state.add(device.requestedBytes)
        state.add(device.usableBytes)
        state.add(bytes: device.blocks.bitmap)
        return state.bytes
    }

    public func restore(savedState state: [UInt8]) throws(DeviceStateError) {
        var reader = DeviceStateReader("memory device", section: "saved state", state[...])
        let requested: UInt64 = try reader.number("requested bytes")
        if let objection = objection(to: requested) { throw reader.error(objection.description) }
        let usable: UInt64 = try reader.number("usable bytes")
        if let objection = objection(to: usable) { throw reader.error("usable region: \(objection)") }
        let bitmap = try reader.bytes("plugged blocks")
        try reader.finish()
        guard let blocks = MemoryBlocks(count: device.blocks.count, bitmap: bitmap) else {
            throw reader.error(
                "plugged blocks: a bitmap of \(bitmap.count) bytes is not one of \(device.blocks.count) blocks")
        }
        guard blocks.pluggedRanges.last.map({ UInt64($0.upperBound) * Self.blockSize <= usable }) ?? true else {
            throw reader.error("plugged blocks: some are not in the usable region of \(usable) bytes")
        }
        device.restore(requestedBytes: requested, usableBytes: usable, blocks)
    }

    // MARK: What the host asks for and sees

    /// Has the driver plug or unplug blocks until so much is plugged. It does what it can.
    ///
    /// - Parameter bytes: whole blocks, the region's size at most.
    /// - Throws: `MemoryRequestError` where it is not so.
    public func request(bytes: UInt64) throws(MemoryRequestError) {
        if let objection = objection(to: bytes) { throw objection }
        device.requestedBytes = bytes
        changed?()
    }

    private func objection(to bytes: UInt64) -> MemoryRequestError? {
        if bytes % Self.blockSize != 0 { return .noWholeBlocks(bytes) }
        return bytes <= device.size ? nil : .beyondRegion(bytes, size: device.size)
    }

    /// Lets the driver plug blocks of a larger part of the region; it is told with the next request.
    ///
    /// - Parameter usableBytes: whole blocks, the region's size at most. Less than now changes nothing.
    public func extend(usableBytes: UInt64) {
        precondition(usableBytes % Self.blockSize == 0 && usableBytes <= device.size, "a part of the region")
        device.usableBytes = max(device.usableBytes, usableBytes)
    }

    /// The first part of the region, of which the driver may plug blocks, bytes.
    public var usableBytes: UInt64 { device.usableBytes }

    /// Bytes that the driver is to have plugged.
    public var requestedBytes: UInt64 { device.requestedBytes }
    /// Bytes that are plugged.
    public var pluggedBytes: UInt64 { device.pluggedBytes }
    /// The guest-physical addresses that are plugged: neighbours as one range, in order.
    public var pluggedRanges: [Range<UInt64>] { device.blocks.pluggedRanges.map(device.addresses) }
}

/// Why so much memory can't be requested.
public enum MemoryRequestError: Error, Equatable, Sendable, CustomStringConvertible {
    /// Bytes that are no multiple of `MemoryBackend.blockSize`.
    case noWholeBlocks(UInt64)
    /// More than the region has.
    case beyondRegion(UInt64, size: UInt64)

    public var description: String {
        switch self {
        case .noWholeBlocks(let bytes):
            "requested bytes: \(bytes) is no multiple of \(MemoryBackend.blockSize)"
        case .beyondRegion(let bytes, let size): "requested bytes: \(bytes) is more than the region's \(size)"
        }
    }
}
