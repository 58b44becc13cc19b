public import LinuxSystem

/// The entropy device as a transport drives it, on an event loop.
public final class RNGBackend: BackendDevice {
    private let device = RNGDevice()
    private let queues: LoopQueues<RNGDevice>

    /// - Parameter onBroken: called with the reason when the driver broke the ring.
    public init(loop: EventLoop, onBroken: @escaping (String) -> Void) {
        queues = LoopQueues("rng", device, loop: loop, onBroken: onBroken)
    }

    public var features: UInt64 { 0 }
    public var queueCount: Int { 1 }
    public var queueCounts: [QueueCounters.Counts] { device.queues.map(\.counters.counts) }
    public var ownsConfiguration: Bool { true }
    public var configuration: [UInt8] { [] }
    public func start(queue: Int, _ setup: QueueSetup) throws { try queues.start(queue: queue, setup) }
    public func stop(queue: Int) -> UInt16 { queues.stop(queue: queue) }
}
