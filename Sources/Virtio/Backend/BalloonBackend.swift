import Glibc
public import LinuxSystem

/// The memory balloon as a transport drives it, on an event loop.
public final class BalloonBackend: BackendDevice {
    private let device: BalloonDevice
    private let queues: LoopQueues<BalloonDevice>
    private let reportsFreePages: Bool
    private var changed: (@Sendable () -> Void)?
    /// Pages that the driver is to take out of use, and as many as it says it has.
    private var target: UInt32 = 0
    private var actual: UInt32 = 0

    /// - Parameters:
    ///   - isPrivate: the guest's memory is mapped so that what it writes is in no file.
    ///   - reportsFreePages: the driver may report free memory.
    ///   - onBroken: called with the reason when the driver broke a ring.
    public init(
        isPrivate: Bool, reportsFreePages: Bool, loop: EventLoop, onBroken: @escaping (String) -> Void
    ) {
        self.reportsFreePages = reportsFreePages
        // In a shared mapping that makes a hole in the memory's file, for all processes that map it. A private mapping loses the
        // guest's own copies, and shows what its file has, which the kernel does not let be changed that way.
        let advice = isPrivate ? MADV_DONTNEED : MADV_REMOVE
        device = BalloonDevice { madvise($0, $1, advice) == 0 }
        queues = LoopQueues("balloon", device, loop: loop, onBroken: onBroken)
    }

    public var features: UInt64 {
        BalloonDevice.statisticsFeature | BalloonDevice.deflateOnOOMFeature
            | (reportsFreePages ? BalloonDevice.reportingFeature : 0)
    }
    public var queueCount: Int { reportsFreePages ? 4 : 3 }
    public var queueCounts: [QueueCounters.Counts] { device.queues.prefix(queueCount).map(\.counters.counts) }
    public var ownsConfiguration: Bool { true }
    /// How many pages the driver is to take, and how many it has (virtio 1.2, 5.5.4).
    public var configuration: [UInt8] {
        [target, actual].flatMap { number in withUnsafeBytes(of: number.littleEndian, Array.init) }
    }

    public func onConfigurationChange(_ changed: @escaping @Sendable () -> Void) { self.changed = changed }

    /// The driver tells how many pages it has taken.
    public func writeConfiguration(_ bytes: [UInt8], at offset: Int) {
        guard bytes.count == 4, offset == 4 else { return }
        actual = bytes.reversed().reduce(0) { $0 << 8 | UInt32($1) }
    }

    /// How many pages the driver is to take, 4 bytes.
    public var savedState: [UInt8] { withUnsafeBytes(of: target.littleEndian, Array.init) }
    public func restore(savedState state: [UInt8]) throws(DeviceStateError) {
        target = try DeviceStateReader.number("balloon", "target", state)
        actual = target
    }

    public func start(queue: Int, _ setup: QueueSetup) throws { try queues.start(queue: queue, setup) }

    public func stop(queue: Int) -> UInt16 {
        device.prepareStop(queue: queue)
        return queues.stop(queue: queue)
    }

    // MARK: What the host asks for and sees

    /// Has the driver take so much memory out of use, in whole pages, or give back what is more. It takes what it can.
    public func setSize(bytes: UInt64) {
        target = UInt32(clamping: bytes / UInt64(BalloonDevice.pageSize))
        changed?()
    }

    /// Bytes that the driver is to take out of use.
    public var targetBytes: UInt64 { UInt64(target) * UInt64(BalloonDevice.pageSize) }
    /// Bytes that the driver says it has taken.
    public var actualBytes: UInt64 { UInt64(actual) * UInt64(BalloonDevice.pageSize) }
    /// Bytes of free memory that have gone back to the host so far, each time that they were reported.
    public var reportedBytes: UInt64 { device.reportedBytes }

    /// What the driver has told of the guest's memory last, and asks it to tell again; nil: nothing yet.
    public func statistics() -> BalloonStatistics? {
        device.wantsStatistics = true
        for index in device.queues.indices where device.role(of: index) == .statistics { queues.serve(index) }
        return device.statistics
    }
}
