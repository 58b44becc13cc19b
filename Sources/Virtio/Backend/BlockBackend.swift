import Glibc
public import LinuxSystem

/// A disk as a transport drives it: a raw file or block device, with a thread for each queue.
public final class BlockBackend: BackendDevice {
    /// How a disk's requests are performed.
    public struct Mode: Equatable, Sendable {
        /// Each queue has as many in progress as its driver asks for, by io_uring(7). If not, one after the other.
        public var usesRing: Bool
        /// Reads and writes go past the host's page cache.
        public var isDirect: Bool
        public var queues: Int
    }

    /// The queues of a disk at most.
    public static let maximumQueues = 4

    public let mode: Mode
    private let device: BlockDevice
    private let queues: ThreadQueues<BlockDevice>
    private let rings: [IORing]
    private let pool: RingPool?

    /// - Parameters:
    ///   - source: regular files or block devices, open for reading and, unless the disk is read-only, for writing; without
    ///     O_APPEND and O_DIRECT. The disk keeps the size that they have now. A last part of less than 512 bytes is left out.
    ///   - readOnly: the device refuses all changes, even if the file is open for writing. What is read stays in the host's page
    ///     cache then, as other machines may read the same; of a disk that can be written the guest's own cache is enough.
    ///   - id: the disk's serial number in the guest; the first 20 bytes count.
    ///   - queues: as many as the disk may have; fewer where the pool has fewer rings left, but for none.
    ///   - rings: nil, or one that is empty: requests are performed one after the other.
    ///   - onBroken: called with the reason, on any thread, when the driver broke the ring.
    /// - Throws: `BlockFileError`, or `SystemError` when a thread can't be started.
    public init(
        _ source: BlockSource, readOnly: Bool, id: String, queues count: Int = 1, rings pool: RingPool? = nil,
        onBroken: @escaping @Sendable (String) -> Void
    ) throws {
        let count = max(1, min(count, Self.maximumQueues))
        let rings = pool?.take(count) ?? []
        do {
            let file = try BlockFile(source, readOnly: readOnly, direct: !readOnly && !rings.isEmpty)
            let own: [IORing?] = rings.isEmpty ? Array(repeating: nil, count: count) : rings
            mode = Mode(usesRing: !rings.isEmpty, isDirect: file.isDirect, queues: own.count)
            device = BlockDevice(file: file, readOnly: readOnly, id: id, rings: own)
            queues = try ThreadQueues("disk", device, threads: own.count, onBroken: onBroken)
        } catch {
            pool?.giveBack(rings)
            throw error
        }
        (self.rings, self.pool) = (rings, pool)
    }

    /// A disk of one file.
    public convenience init(
        file: SharedDescriptor, readOnly: Bool, id: String, queues: Int = 1, rings: RingPool? = nil,
        onBroken: @escaping @Sendable (String) -> Void
    ) throws {
        try self.init(
            BlockSource(file), readOnly: readOnly, id: id, queues: queues, rings: rings, onBroken: onBroken)
    }

    /// The queues were stopped, so that no request is in progress.
    deinit { pool?.giveBack(rings) }

    public var features: UInt64 { device.features }
    public var queueCount: Int { device.queues.count }
    public var queueCounts: [QueueCounters.Counts] { device.queues.map(\.counters.counts) }
    public var ownsConfiguration: Bool { true }
    public var configuration: [UInt8] { device.configuration }
    /// The disk's serial number, 20 bytes: by it a saved machine is given the same disk again.
    public var savedState: [UInt8] { device.serial }
    public func restore(savedState state: [UInt8]) throws(DeviceStateError) {
        guard state == device.serial else { throw DeviceStateError("block: saved state: another disk's") }
    }
    public func start(queue: Int, _ setup: QueueSetup) throws { try queues.start(queue: queue, setup) }
    public func stop(queue: Int) -> UInt16 { queues.stop(queue: queue) }
}
