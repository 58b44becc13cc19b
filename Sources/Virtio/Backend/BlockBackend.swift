import Glibc
public import LinuxSystem

/// A disk behind a transport: a raw file or block device, served by a thread of its own.
public final class BlockBackend: BackendDevice {
    private let device: BlockDevice
    private let queues: ThreadQueues<BlockDevice>

    /// - Parameters:
    ///   - file: a regular file or block device, open for reading and, unless the disk is read-only, writing; neither
    ///     O_APPEND nor O_DIRECT. Its size now is the disk's for good; a last part of less than 512 bytes is left out.
    ///   - readOnly: nothing that the guest does reaches the file, however it is open.
    ///   - id: what the guest calls the disk's serial number; 20 bytes of it.
    ///   - onBroken: the driver broke the ring; called on any thread.
    /// - Throws: `BlockFileError`, or `SystemError` when there is no thread to be had.
    public init(
        file: SharedDescriptor, readOnly: Bool, id: String, onBroken: @escaping @Sendable (String) -> Void
    ) throws {
        device = BlockDevice(file: try BlockFile(file, readOnly: readOnly), readOnly: readOnly, id: id)
        queues = try ThreadQueues("disk", device, onBroken: onBroken)
    }

    public var features: UInt64 { device.features }
    public var queueCount: Int { device.queues.count }
    public var ownsConfiguration: Bool { true }
    public var configuration: [UInt8] { device.configuration }
    public func start(queue: Int, _ setup: QueueSetup) throws { try queues.start(queue: queue, setup) }
    public func stop(queue: Int) -> UInt16 { queues.stop(queue: queue) }
}
