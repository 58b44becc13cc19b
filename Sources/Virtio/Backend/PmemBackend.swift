public import LinuxSystem

/// A read-only persistent memory device as a transport drives it, on an event loop. The machine maps the memory itself.
public final class PmemBackend: BackendDevice {
    private let range: Range<UInt64>
    private let device = PmemDevice()
    private let queues: LoopQueues<PmemDevice>

    /// - Parameters:
    ///   - range: the memory's guest-physical addresses.
    ///   - onBroken: called with the reason when the driver broke the ring.
    public init(range: Range<UInt64>, loop: EventLoop, onBroken: @escaping (String) -> Void) {
        self.range = range
        queues = LoopQueues("pmem", device, loop: loop, onBroken: onBroken)
    }

    public var features: UInt64 { 0 }
    public var queueCount: Int { 1 }
    public var queueCounts: [QueueCounters.Counts] { device.queues.map(\.counters.counts) }
    public var ownsConfiguration: Bool { true }
    /// Start and size (virtio 1.2, 5.19.4).
    public var configuration: [UInt8] {
        [range.lowerBound, UInt64(range.count)].flatMap { number in
            withUnsafeBytes(of: number.littleEndian, Array.init)
        }
    }
    public func start(queue: Int, _ setup: QueueSetup) throws { try queues.start(queue: queue, setup) }
    public func stop(queue: Int) -> UInt16 { queues.stop(queue: queue) }
}
