public import LinuxSystem

/// A network interface as a transport drives it. Each pair of its queues has a thread of its own.
public final class NetBackend: BackendDevice {
    private let device: NetDevice
    private let queues: ThreadQueues<NetDevice>

    /// - Parameters:
    ///   - tap: the queues of a tap as `Tap` creates them, non-blocking; one for each pair of virtqueues.
    ///   - hardwareAddress: 6 bytes.
    ///   - onBroken: called with the reason, on any thread, when the driver broke a ring.
    public init(
        tap: [SharedDescriptor], hardwareAddress: [UInt8], onBroken: @escaping @Sendable (String) -> Void
    ) throws(SystemError) {
        device = NetDevice(tap: tap, hardwareAddress: hardwareAddress)
        queues = try ThreadQueues("network", device, threads: tap.count, of: { $0 / 2 }, onBroken: onBroken)
        device.onPairsChange = { [weak queues] in queues?.wakeUp() }
    }

    public var features: UInt64 { device.features }
    public var queueCount: Int { device.queues.count }
    public var queueCounts: [QueueCounters.Counts] { device.queues.map(\.counters.counts) }
    public var ownsConfiguration: Bool { true }
    public var configuration: [UInt8] { device.configuration }
    /// The link is up: the tap is there, and the host wants it so. The guest gets a configuration change when that changes.
    public var isLinkUp: Bool { device.link.isUp }

    /// Sets the link up or down. The link of a tap that is gone stays down.
    public func setLink(isUp: Bool) { device.link.set(isWanted: isUp) }

    public func onConfigurationChange(_ changed: @escaping @Sendable () -> Void) { device.link.onChange(changed) }

    /// How many pairs of queues are active, 4 bytes.
    public var savedState: [UInt8] { withUnsafeBytes(of: UInt32(device.activePairs).littleEndian, Array.init) }
    public func restore(savedState state: [UInt8]) throws(DeviceStateError) {
        let pairs: UInt32 = try DeviceStateReader.number("network", "active pairs", state)
        device.restore(activePairs: Int(pairs))
    }

    public func start(queue: Int, _ setup: QueueSetup) throws {
        // Before the queue's thread starts to serve it.
        if queue == 0, setup.isFresh { device.setFeatures(setup.features) }
        try queues.start(queue: queue, setup)
    }

    public func stop(queue: Int) -> UInt16 { queues.stop(queue: queue) }
}
