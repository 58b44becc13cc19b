import LinuxSystem

/// The file device as a transport drives it. Threads of its own serve its queues, because a request may block on a disk.
public final class FilesBackend: BackendDevice {
    private let device: FileDevice
    private let queues: ThreadQueues<FileDevice>

    /// - Parameters:
    ///   - threads: the number of threads. Thread i modulo `threads` serves queue i.
    ///   - onBroken: called with the reason, on any thread, when the driver broke a ring.
    public init(device: FileDevice, threads: Int = 1, onBroken: @escaping @Sendable (String) -> Void) throws {
        self.device = device
        queues = try ThreadQueues("file system", device, threads: threads, onBroken: onBroken)
    }

    public var features: UInt64 { 0 }
    public var queueCount: Int { device.queues.count }
    public var queueCounts: [QueueCounters.Counts] { device.queues.map(\.counters.counts) }
    /// QEMU supplies the tag itself.
    public var ownsConfiguration: Bool { false }
    public var configuration: [UInt8] { device.configuration }
    public func start(queue: Int, _ setup: QueueSetup) throws { try queues.start(queue: queue, setup) }
    public func stop(queue: Int) -> UInt16 { queues.stop(queue: queue) }
}
