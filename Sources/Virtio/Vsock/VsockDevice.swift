import Glibc
public import LinuxSystem

/// How an attempt to connect to a port of the guest ended.
public enum VsockConnectResult: Error, Equatable, Sendable {
    case connected
    /// The guest answered with RST: nobody listens.
    case refused
    /// The guest's driver has not started the device, or has reset it.
    case notReady
    case timedOut
    /// As many connections as the device keeps.
    case tooMany
}

/// A virtio socket device (virtio 1.2, 5.10) through which only the host connects.
///
/// A pure state machine between two rings and a number of stream sockets: it doesn't know who runs the machine, and
/// asks for events through `Effects`. Belongs to one thread. The guest's third queue, for events, is the transport's.
public final class VsockDevice {
    /// What the device asks of whoever runs it.
    public struct Effects {
        /// Watch a socket for so much, and call `socketReady` then; nil: no more. False when that can't be.
        public var watch: (_ socket: Int32, _ hostPort: UInt32, _ interest: EventLoop.Interest?) -> Bool
        /// An attempt to connect has ended.
        public var finished: (_ token: UInt64, VsockConnectResult) -> Void
        /// The driver of a queue wants an interrupt.
        public var interrupt: (_ queue: Int) -> Void
        /// The driver broke a queue; the device has stopped.
        public var broken: (_ queue: Int, QueueError) -> Void

        public init(
            watch: @escaping (Int32, UInt32, EventLoop.Interest?) -> Bool,
            finished: @escaping (UInt64, VsockConnectResult) -> Void,
            interrupt: @escaping (Int) -> Void, broken: @escaping (Int, QueueError) -> Void
        ) {
            self.watch = watch
            self.finished = finished
            self.interrupt = interrupt
            self.broken = broken
        }
    }

    /// The context identifier of the host (virtio 1.2, 5.10.4).
    public static let hostCID: UInt64 = 2
    /// The first port that stands for a host socket.
    public static let firstHostPort: UInt32 = 1 << 30
    /// Queue numbers: packets to the guest, packets from the guest.
    public static let receiveQueue = 0, transmitQueue = 1

    static let replyLimit = 256
    /// Chains taken from a ring before others get their turn.
    static let budget = 256

    public let guestCID: UInt64
    public let receive = Virtqueue()
    public let transmit = Virtqueue()
    let maximumConnections: Int
    let effects: Effects
    let scratch = UnsafeMutablePointer<iovec>.allocate(capacity: Virtqueue.maximumChain)
    var connections: [UInt32: VsockConnection] = [:]
    /// Connections with something to send to the guest, by host port.
    var ready: Ring<UInt32>
    /// RST packets to addresses without a connection.
    var replies = Ring<(hostPort: UInt32, guestPort: UInt32)>(capacity: VsockDevice.replyLimit)
    private var nextPort = VsockDevice.firstHostPort
    private var attempts = 0
    /// Work was left when the budget ran out: `pump` wants to be called again.
    public private(set) var hasMore = false

    public init(guestCID: UInt64, maximumConnections: Int = 1024, effects: Effects) {
        self.guestCID = guestCID
        self.maximumConnections = maximumConnections
        self.effects = effects
        ready = Ring(capacity: maximumConnections)
        connections.reserveCapacity(maximumConnections)
    }

    deinit { scratch.deallocate() }

    /// The configuration space: the guest's CID (virtio 1.2, 5.10.4).
    public var configuration: [UInt8] { (0..<8).map { UInt8(truncatingIfNeeded: guestCID >> (8 * UInt64($0))) } }

    /// Both rings run: the guest's driver is there.
    public var isRunning: Bool { receive.isRunning && transmit.isRunning }

    public var connectionCount: Int { connections.count }

    // MARK: Host side

    /// Connects `socket`, one end of a stream socket pair, to a port of the guest. `finished` tells how it went.
    /// - Parameter deadline: monotonic nanoseconds.
    public func connect(port: UInt32, socket: SharedDescriptor, token: UInt64, deadline: UInt64) {
        guard isRunning else { return effects.finished(token, .notReady) }
        guard connections.count < maximumConnections else { return effects.finished(token, .tooMany) }
        let hostPort = freePort()
        let connection = VsockConnection(
            hostPort: hostPort, guestPort: port, token: token, socket: socket, deadline: deadline)
        connections[hostPort] = connection
        attempts += 1
        enqueue(connection)
        pump()
    }

    private func freePort() -> UInt32 {
        while true {
            let port = nextPort
            nextPort = nextPort == UInt32.max - 1 ? Self.firstHostPort : nextPort + 1
            if connections[port] == nil { return port }
        }
    }

    /// A watched socket has events.
    public func socketReady(hostPort: UInt32, _ events: EventLoop.Interest) {
        guard let connection = connections[hostPort] else { return }
        if !connection.buffer.isEmpty, !events.isDisjoint(with: [.writable, .hangUp, .error]) { flush(connection) }
        guard connections[hostPort] === connection else { return pump() }
        if connection.readsHost {
            if !events.isDisjoint(with: [.readable, .hangUp, .error]) {
                connection.outgoing.insert(.data)
                enqueue(connection)
            }
        } else if connection.state == .established, !events.isDisjoint(with: [.hangUp, .error]) {
            reset(connection)
        }
        pump()
        updateInterest(connection)
    }

    /// The earliest deadline of an attempt to connect: monotonic nanoseconds.
    public var nextDeadline: UInt64? {
        guard attempts > 0 else { return nil }
        return connections.values.lazy.filter { $0.state == .connecting }.map(\.deadline).min()
    }

    /// Ends the attempts whose time is over.
    public func expire(now: UInt64) {
        guard attempts > 0 else { return }
        for connection in Array(connections.values) where connection.state == .connecting && connection.deadline <= now
        {
            if connection.requestSent { reply(hostPort: connection.hostPort, guestPort: connection.guestPort) }
            remove(connection, .timedOut)
        }
        pump()
    }

    // MARK: Driver side

    /// Ends all connections: the guest's driver was reset. What the guest sent before still reaches the host.
    public func reset() {
        for connection in Array(connections.values) { end(connection, .notReady) }
        replies.removeAll()
    }

    /// Moves all packets that can move. To be called after a kick, and as long as `hasMore` is set.
    public func pump() {
        hasMore = false
        guard isRunning else { return }
        var budget = Self.budget
        repeat {
            transmit.disarmKick()
            takeFromGuest(&budget)
            giveToGuest(&budget)
            if !isRunning { return }
        } while budget > 0 && armed()
        hasMore = budget <= 0
        if receive.needsInterrupt() { effects.interrupt(Self.receiveQueue) }
        if transmit.needsInterrupt() { effects.interrupt(Self.transmitQueue) }
    }

    /// Asks for kicks; true when there is something to do already.
    private func armed() -> Bool {
        // With answers waiting for room, packets from the guest must wait too.
        if replies.count < Self.replyLimit, transmit.armKick() { return true }
        let waiting = !replies.isEmpty || !ready.isEmpty
        if waiting { return receive.armKick() }
        receive.disarmKick()
        return false
    }

    func fail(_ queue: Int, _ error: QueueError) {
        for connection in Array(connections.values) { end(connection, .notReady) }
        effects.broken(queue, error)
    }

    // MARK: Connections

    func enqueue(_ connection: VsockConnection) {
        guard !connection.queued, connection.state != .draining else { return }
        connection.queued = true
        ready.append(connection.hostPort)
    }

    func updateInterest(_ connection: VsockConnection) {
        guard connections[connection.hostPort] === connection else { return }
        let interest = connection.interest
        guard interest != connection.watched else { return }
        if effects.watch(connection.socket.raw, connection.hostPort, interest) {
            connection.watched = interest
            return
        }
        // A descriptor that can't be waited for is no use to anyone.
        if connection.state != .draining { reply(hostPort: connection.hostPort, guestPort: connection.guestPort) }
        remove(connection, .refused)
    }

    func established(_ connection: VsockConnection) {
        connection.state = .established
        attempts -= 1
        effects.finished(connection.token, .connected)
        updateInterest(connection)
    }

    func reply(hostPort: UInt32, guestPort: UInt32) { replies.append((hostPort, guestPort)) }

    /// Answers RST and ends the connection.
    func reset(_ connection: VsockConnection) {
        reply(hostPort: connection.hostPort, guestPort: connection.guestPort)
        end(connection, .refused)
    }

    /// Ends the connection for the guest; the host still gets what is in the buffer.
    func end(_ connection: VsockConnection, _ result: VsockConnectResult) {
        guard connection.state != .draining else { return }
        if connection.buffer.isEmpty || connection.state == .connecting { return remove(connection, result) }
        connection.state = .draining
        connection.outgoing = []
        updateInterest(connection)
    }

    /// Forgets the connection and closes its socket.
    func remove(_ connection: VsockConnection, _ result: VsockConnectResult) {
        connections[connection.hostPort] = nil
        if connection.watched != nil { _ = effects.watch(connection.socket.raw, connection.hostPort, nil) }
        if connection.state == .connecting {
            attempts -= 1
            effects.finished(connection.token, result)
        }
    }
}
