import Glibc
public import LinuxSystem

/// How an attempt to connect to a port of the guest ended.
public enum VsockConnectResult: Error, Equatable, Sendable {
    case connected
    /// The guest replied with RST: nothing listens on the port.
    case refused
    /// The guest's driver has not started the device, or has reset it.
    case notReady
    case timedOut
    /// The device has as many connections as it allows.
    case tooMany
}

/// A virtio socket device (virtio 1.2, 5.10) through which only the host connects.
///
/// A state machine between two virtqueues and a number of stream sockets. It does not know the transport, and asks for events
/// through `Effects`. It belongs to one thread. The event queue belongs to the transport.
public final class VsockDevice {
    /// What the device asks its owner to do.
    public struct Effects {
        /// Watches a socket for `interest` and calls `socketReady` for its events; nil: stops watching. Returns false when the
        /// socket can't be watched.
        public var watch: (_ socket: Int32, _ hostPort: UInt32, _ interest: EventLoop.Interest?) -> Bool
        /// An attempt to connect has ended.
        public var finished: (_ token: UInt64, VsockConnectResult) -> Void
        /// The driver of a queue wants an interrupt.
        public var interrupt: (_ queue: Int) -> Void
        /// The driver broke a queue, and the device has stopped.
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
    /// The first port number that the device gives to a host socket.
    public static let firstHostPort: UInt32 = 1 << 30
    /// Queue numbers: packets to the guest, packets from the guest.
    public static let receiveQueue = 0, transmitQueue = 1

    static let replyLimit = 256
    /// Chains taken from a ring before other work gets its turn.
    static let budget = 256

    public let guestCID: UInt64
    public let receive = Virtqueue()
    public let transmit = Virtqueue()
    let maximumConnections: Int
    let effects: Effects
    let scratch = UnsafeMutablePointer<iovec>.allocate(capacity: Virtqueue.maximumChain)
    var connections: [UInt32: VsockConnection] = [:]
    /// Connections with something to send to the guest, by host port.
    var ready: FIFOQueue<UInt32>
    /// RST packets to addresses without a connection.
    var replies = FIFOQueue<(hostPort: UInt32, guestPort: UInt32)>(capacity: VsockDevice.replyLimit)
    /// A restored device goes on from here: the guest may still have sockets of connections before.
    private(set) var nextPort = VsockDevice.firstHostPort
    private var attempts = 0
    /// Work was left when the budget ran out: `pump` must be called again.
    public private(set) var hasMore = false

    public init(guestCID: UInt64, maximumConnections: Int = 1024, effects: Effects) {
        self.guestCID = guestCID
        self.maximumConnections = maximumConnections
        self.effects = effects
        ready = FIFOQueue(capacity: maximumConnections)
        connections.reserveCapacity(maximumConnections)
    }

    deinit { scratch.deallocate() }

    /// The configuration space: the guest's CID (virtio 1.2, 5.10.4).
    public var configuration: [UInt8] { (0..<8).map { UInt8(truncatingIfNeeded: guestCID >> (8 * UInt64($0))) } }

    /// Whether both rings run, which means that the guest's driver has started.
    public var isRunning: Bool { receive.isRunning && transmit.isRunning }

    public var connectionCount: Int { connections.count }
    /// What connections have carried so far.
    public internal(set) var bytesToGuest: UInt64 = 0, bytesFromGuest: UInt64 = 0

    // MARK: Host side

    /// Connects `socket`, one end of a stream socket pair, to a port of the guest. `Effects.finished` gets the result.
    ///
    /// - Parameters:
    ///   - token: passed to `Effects.finished`.
    ///   - deadline: monotonic nanoseconds.
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

    /// Goes on from a port.
    ///
    /// - Parameter port: of a device that was saved; not trusted.
    func restore(nextPort port: UInt32) {
        if (Self.firstHostPort..<UInt32.max).contains(port) { nextPort = port }
    }

    private func freePort() -> UInt32 {
        while true {
            let port = nextPort
            nextPort = nextPort == UInt32.max - 1 ? Self.firstHostPort : nextPort + 1
            if connections[port] == nil { return port }
        }
    }

    /// Handles events of a watched socket.
    public func socketReady(hostPort: UInt32, _ events: EventLoop.Interest) {
        guard let connection = connections[hostPort] else { return }
        if !connection.buffer.isEmpty, !events.isDisjoint(with: [.writable, .hangUp, .error]) { flush(connection) }
        guard connections[hostPort] === connection else { return pump() }
        if connection.canReadHost {
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

    /// Ends the attempts whose deadline has passed.
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

    /// Ends all connections after the guest's driver was reset. Bytes that the guest sent before still reach the host.
    public func reset() {
        for connection in Array(connections.values) { end(connection, .notReady) }
        replies.removeAll()
    }

    /// Moves packets in both directions. To be called after a kick, and as long as `hasMore` is set.
    public func pump() {
        hasMore = false
        guard isRunning else { return }
        var budget = Self.budget
        repeat {
            transmit.disarmKick()
            receiveFromGuest(&budget)
            sendToGuest(&budget)
            if !isRunning { return }
        } while budget > 0 && armed()
        hasMore = budget <= 0
        if receive.needsInterrupt() { effects.interrupt(Self.receiveQueue) }
        if transmit.needsInterrupt() { effects.interrupt(Self.transmitQueue) }
    }

    /// Asks for kicks.
    ///
    /// - Returns: whether there is something to do already.
    private func armed() -> Bool {
        // While replies wait for room, packets from the guest must wait too.
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
        // A socket that can't be watched is of no use: end the connection.
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

    /// Sends RST and ends the connection.
    func reset(_ connection: VsockConnection) {
        reply(hostPort: connection.hostPort, guestPort: connection.guestPort)
        end(connection, .refused)
    }

    /// Ends the connection for the guest. The host still gets the bytes in the buffer.
    func end(_ connection: VsockConnection, _ result: VsockConnectResult) {
        guard connection.state != .draining else { return }
        if connection.buffer.isEmpty || connection.state == .connecting { return remove(connection, result) }
        connection.state = .draining
        connection.outgoing = []
        updateInterest(connection)
    }

    /// Removes the connection and closes its socket.
    func remove(_ connection: VsockConnection, _ result: VsockConnectResult) {
        connections[connection.hostPort] = nil
        if connection.watched != nil { _ = effects.watch(connection.socket.raw, connection.hostPort, nil) }
        if connection.state == .connecting {
            attempts -= 1
            effects.finished(connection.token, result)
        }
    }
}
