import Glibc
public import LinuxSystem

/// The vsock device as a transport drives it: its rings and sockets on one event loop.
public final class VsockBackend: BackendDevice {
    public let device: VsockDevice
    private let loop: EventLoop
    private var kicks: [Int: SharedDescriptor] = [:]
    private let lines: LinesTable
    private let onBroken: (String) -> Void
    /// Called when the driver has started the device: both queues for packets run.
    public var onStarted: () -> Void = {}
    /// Events for the driver.
    private let events = Virtqueue()
    /// Called when the driver has taken the events that it was sent.
    private var onEventsTaken: (() -> Void)?

    /// How the device signals the driver, by queue.
    private final class LinesTable {
        var lines: [Int: RingLines] = [:]
    }

    /// - Parameters:
    ///   - queueCount: 3, or 2 when the vhost-user front end keeps the event queue. The only event is `sendTransportReset`'s.
    ///   - finished: called with the token and the result when an attempt to connect has ended.
    ///   - onBroken: called with the reason when the driver broke a ring and the device has stopped.
    public init(
        guestCID: UInt64, queueCount: Int = 2, loop: EventLoop,
        finished: @escaping (UInt64, VsockConnectResult) -> Void,
        onBroken: @escaping (String) -> Void
    ) {
        self.loop = loop
        self.queueCount = queueCount
        let table = LinesTable()
        lines = table
        let router = Router(loop)
        self.onBroken = onBroken
        device = VsockDevice(
            guestCID: guestCID,
            effects: .init(
                watch: { socket, port, interest in router.watch(socket, port, interest) },
                finished: finished,
                interrupt: { table.lines[$0]?.interrupt() },
                broken: { queue, error in
                    table.lines[queue]?.reportError()
                    onBroken("vsock queue \(queue): \(error)")
                }))
        router.device = device
    }

    /// Registers the sockets with the loop as the device asks for it.
    private final class Router {
        let loop: EventLoop
        weak var device: VsockDevice?
        private var watched: Set<Int32> = []

        init(_ loop: EventLoop) { self.loop = loop }

        func watch(_ socket: Int32, _ port: UInt32, _ interest: EventLoop.Interest?) -> Bool {
            guard let interest else {
                watched.remove(socket)
                loop.remove(socket)
                return true
            }
            do {
                if watched.contains(socket) {
                    try loop.modify(socket, interest)
                } else {
                    try loop.add(socket, interest) { [weak device] in device?.socketReady(hostPort: port, $0) }
                    watched.insert(socket)
                }
                return true
            } catch {
                return false
            }
        }
    }

    public var features: UInt64 { 0 }
    /// The next port of a connection, 4 bytes.
    public var savedState: [UInt8] { withUnsafeBytes(of: device.nextPort.littleEndian, Array.init) }
    public func restore(savedState state: [UInt8]) throws(DeviceStateError) {
        device.restore(nextPort: try DeviceStateReader.number("vsock", "next port", state))
    }
    public let queueCount: Int
    public var queueCounts: [QueueCounters.Counts] {
        [device.receive, device.transmit, events].prefix(queueCount).map(\.counters.counts)
    }
    public var ownsConfiguration: Bool { true }
    public var configuration: [UInt8] { device.configuration }

    /// How long the loop may sleep, milliseconds; -1: without limit.
    public var timeout: Int32 {
        if device.hasMore { return 0 }
        guard let deadline = device.nextDeadline else { return -1 }
        let now = monotonicNanoseconds()
        return deadline <= now ? 0 : Int32(clamping: (deadline - now) / 1_000_000 + 1)
    }

    /// To be called after each round of the loop: ends attempts that timed out, and goes on with work that was left.
    public func afterRound() {
        device.expire(now: monotonicNanoseconds())
        if device.hasMore { device.pump() }
    }

    public func start(queue: Int, _ setup: QueueSetup) throws {
        let isEvents = queue == Self.eventQueue
        if setup.isFresh, !isEvents { device.reset() }
        lines.lines[queue] = setup.lines
        try virtqueue(queue).start(
            setup.geometry, memory: setup.memory, features: setup.features, position: setup.position)
        kicks[queue] = setup.kick
        try loop.add(setup.kick.raw, .readable) { [unowned self] _ in
            if consumeKick(setup.kick.raw) { return isEvents ? eventsTaken() : device.pump() }
            loop.remove(setup.kick.raw)
            onBroken("vsock queue \(queue): the kick descriptor is not an eventfd")
        }
        if isEvents { return }
        if kicks.keys.count(where: { $0 < Self.eventQueue }) == 2 { onStarted() }
        device.pump()
    }

    public func stop(queue: Int) -> UInt16 {
        if let kick = kicks.removeValue(forKey: queue) { loop.remove(kick.raw) }
        lines.lines[queue] = nil
        let queue = virtqueue(queue)
        queue.stop()
        return queue.position
    }

    private func virtqueue(_ index: Int) -> Virtqueue {
        switch index {
        case VsockDevice.receiveQueue: device.receive
        case VsockDevice.transmitQueue: device.transmit
        default: events
        }
    }

    // MARK: Events

    private static let eventQueue = 2
    /// VIRTIO_VSOCK_EVENT_TRANSPORT_RESET (virtio 1.2, 5.10.6.7).
    private static let transportReset: [UInt8] = [0, 0, 0, 0]

    private func eventsTaken() {
        onEventsTaken?()
        onEventsTaken = nil
    }

    /// Tells the driver that all connections have ended, as after a restore: it resets its sockets.
    ///
    /// - Parameter done: the driver has done so. Called at once where it has given the device no place for an event.
    public func sendTransportReset(_ done: @escaping () -> Void) {
        var sent = false
        do throws(QueueError) {
            guard events.isRunning else { return done() }
            // Every place gets the event, so that the driver kicks when it has made new ones: after it has done what it was told.
            while try events.next() {
                let count = Vectors.copyIn(Self.transportReset, count: Self.transportReset.count, to: events.writable)
                events.complete(written: UInt32(count))
                sent = true
            }
        } catch {
            lines.lines[Self.eventQueue]?.reportError()
            return onBroken("vsock queue \(Self.eventQueue): \(error)")
        }
        guard sent else { return done() }
        onEventsTaken = done
        _ = events.armKick()
        lines.lines[Self.eventQueue]?.interrupt()
    }
}
