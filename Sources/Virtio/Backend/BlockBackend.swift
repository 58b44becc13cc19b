import Glibc
public import LinuxSystem

/// A disk as a transport drives it: a raw file or block device, served by a thread of its own.
public final class BlockBackend: BackendDevice {
    private let device: BlockDevice
    private let queues: ThreadQueues<BlockDevice>

    /// - Parameters:
    ///   - source: regular files or block devices, open for reading and, unless the disk is read-only, for writing; without
    ///     O_APPEND and O_DIRECT. The disk keeps the size that they have now. A last part of less than 512 bytes is left out.
    ///   - readOnly: the device refuses all changes, even if the file is open for writing.
    ///   - id: the disk's serial number in the guest; the first 20 bytes count.
    ///   - onBroken: called with the reason, on any thread, when the driver broke the ring.
    /// - Throws: `BlockFileError`, or `SystemError` when the thread can't be started.
    public init(
        _ source: BlockSource, readOnly: Bool, id: String, onBroken: @escaping @Sendable (String) -> Void
    ) throws {
        device = BlockDevice(file: try BlockFile(source, readOnly: readOnly), readOnly: readOnly, id: id)
        queues = try ThreadQueues("disk", device, onBroken: onBroken)
    }

    /// A disk of one file.
    public convenience init(
        file: SharedDescriptor, readOnly: Bool, id: String, onBroken: @escaping @Sendable (String) -> Void
    ) throws {
        try self.init(BlockSource(file), readOnly: readOnly, id: id, onBroken: onBroken)
    }

    public var features: UInt64 { device.features }
    public var queueCount: Int { device.queues.count }
    public var queueCounts: [QueueCounters.Counts] { device.queues.map(\.counters.counts) }
    public var ownsConfiguration: Bool { true }
    public var configuration: [UInt8] { device.configuration }
    public func start(queue: Int, _ setup: QueueSetup) throws { try queues.start(queue: queue, setup) }
    public func stop(queue: Int) -> UInt16 { queues.stop(queue: queue) }
}
