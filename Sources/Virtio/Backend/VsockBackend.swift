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

    /// How the device signals the driver, by queue.
    private final class LinesTable {
        var lines: [Int: RingLines] = [:]
    }

    /// - Parameters:
    ///   - queueCount: 3, or 2 when the vhost-user front end keeps the event queue. The device sends no events.
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
    public let queueCount: Int
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
        guard queue < Self.eventQueue else { return }
        if setup.isFresh { device.reset() }
        lines.lines[queue] = setup.lines
        try virtqueue(queue).start(
            setup.geometry, memory: setup.memory, features: setup.features, position: setup.position)
        kicks[queue] = setup.kick
        try loop.add(setup.kick.raw, .readable) { [unowned self] _ in
            if consumeKick(setup.kick.raw) { return device.pump() }
            loop.remove(setup.kick.raw)
            onBroken("vsock queue \(queue): the kick descriptor is not an eventfd")
        }
        if kicks.count == 2 { onStarted() }
        device.pump()
    }

    public func stop(queue: Int) -> UInt16 {
        guard queue < Self.eventQueue else { return 0 }
        if let kick = kicks.removeValue(forKey: queue) { loop.remove(kick.raw) }
        lines.lines[queue] = nil
        let queue = virtqueue(queue)
        queue.stop()
        return queue.position
    }

    private static let eventQueue = 2

    private func virtqueue(_ index: Int) -> Virtqueue {
        index == VsockDevice.receiveQueue ? device.receive : device.transmit
    }
}
