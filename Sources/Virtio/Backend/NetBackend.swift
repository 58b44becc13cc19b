public import LinuxSystem

/// A network interface behind a transport, each pair of its queues served by a thread of its own.
public final class NetBackend: BackendDevice {
    private let device: NetDevice
    private let queues: ThreadQueues<NetDevice>

    /// - Parameters:
    ///   - tap: the queues of a tap as `Tap` makes them, non-blocking: one for each pair of queues here.
    ///   - hardwareAddress: 6 bytes.
    ///   - onBroken: the driver broke a ring; called on any thread.
    public init(
        tap: [SharedDescriptor], hardwareAddress: [UInt8], onBroken: @escaping @Sendable (String) -> Void
    ) throws(SystemError) {
        device = NetDevice(tap: tap, hardwareAddress: hardwareAddress)
        queues = try ThreadQueues("network", device, threads: tap.count, of: { $0 / 2 }, onBroken: onBroken)
        device.onPairsChange = { [weak queues] in queues?.nudge() }
    }

    public var features: UInt64 { device.features }
    public var queueCount: Int { device.queues.count }
    public var ownsConfiguration: Bool { true }
    public var configuration: [UInt8] { device.configuration }
    /// The link is up: the tap is there, and the host wants it so. The guest gets a configuration change when that changes.
    public var isLinkUp: Bool { device.link.isUp }

    /// Sets the link up or down. The link of a tap that is gone stays down.
    public func setLink(isUp: Bool) { device.link.set(isWanted: isUp) }

    public func onConfigurationChange(_ changed: @escaping @Sendable () -> Void) { device.link.onChange(changed) }

    public func start(queue: Int, _ setup: QueueSetup) throws {
        // Before the thread knows of the queue.
        if queue == 0 { device.begin(setup.features) }
        try queues.start(queue: queue, setup)
    }

    public func stop(queue: Int) -> UInt16 { queues.stop(queue: queue) }
}
