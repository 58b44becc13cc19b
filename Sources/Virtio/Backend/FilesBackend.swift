import LinuxSystem

/// The file device behind a transport. Its queues are served by threads of their own: a request may wait for a disk.
public final class FilesBackend: BackendDevice {
    private let device: FileDevice
    private let queues: ThreadQueues<FileDevice>

    /// - Parameters:
    ///   - threads: queue i is served by thread i modulo so many.
    ///   - onBroken: the driver broke a ring; called on any thread.
    public init(device: FileDevice, threads: Int = 1, onBroken: @escaping @Sendable (String) -> Void) throws {
        self.device = device
        queues = try ThreadQueues("file system", device, threads: threads, onBroken: onBroken)
    }

    public var features: UInt64 { 0 }
    public var queueCount: Int { device.queues.count }
    /// QEMU keeps the tag itself.
    public var ownsConfiguration: Bool { false }
    public var configuration: [UInt8] { device.configuration }
    public func start(queue: Int, _ setup: QueueSetup) throws { try queues.start(queue: queue, setup) }
    public func stop(queue: Int) -> UInt16 { queues.stop(queue: queue) }
}
