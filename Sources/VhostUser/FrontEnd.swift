import Glibc
public import LinuxSystem
import Synchronization
public import Virtio

/// A vhost-user front end: a device of this process's machine that another process serves.
///
/// Kicks and interrupts go directly between the guest and the back end, through the eventfds of each `QueueSetup`. This process
/// only passes the eventfds on. Calls come from one thread, and each request to the back end has a deadline. The back end is
/// not trusted: an error of the back end ends the connection for good and is passed to the handler of `watch`.
public final class VhostUserFrontEnd: BackendDevice {
    /// The source of the configuration space.
    public enum Configuration: Sendable, Equatable {
        /// The machine supplies it, as the protocol requires for file systems (`FileDevice.configuration`).
        case own([UInt8])
        /// The back end is asked for `size` bytes.
        case fromBackEnd(size: Int)
    }

    /// A failure that happens between calls.
    public enum Failure: Error, Sendable, Equatable, CustomStringConvertible {
        /// The back end reports that the driver broke a ring.
        case ring(Int)
        /// The connection to the back end has ended; it is not used again.
        case connection(SessionError)

        public var description: String {
            switch self {
            case .ring(let queue): "vhost-user: the back end has stopped ring \(queue)"
            case .connection(let error): "\(error)"
            }
        }
    }

    public let features: UInt64
    public let queueCount: Int
    public var ownsConfiguration: Bool { true }
    public let configuration: [UInt8]

    /// The feature bits of devices: those below and above the bits of the ring and the transport (virtio 1.2, 2.2).
    private static let deviceBits: UInt64 = 0xff_ffff | ~0 << 50

    private var connection: FrontEndConnection
    private let memory: SharedMemory
    /// Whether the back end has negotiated protocol features. Then each ring must be enabled.
    private let enablesRings: Bool
    /// The features that the back end was told the driver accepted; nil before the first start.
    private var acceptedFeatures: UInt64?
    /// The position at which each queue started, or at which it stopped.
    private var positions: [UInt16]
    private var running: Set<Int> = []
    /// The back end signals these when it stops a ring because of an error.
    private let errors: [SharedDescriptor]
    private let failure = Mutex<SessionError?>(nil)

    /// Negotiates features with the back end.
    ///
    /// - Parameters:
    ///   - socket: connected to the back end.
    ///   - memory: all of the guest's memory, 8 regions at most.
    ///   - timeout: the time for one request. Stopping a queue waits for its requests in progress.
    /// - Throws: `SessionError` when the back end does not reply, replies wrongly, or lacks something: `RingFeatures.all`, the
    ///   number of queues, or its configuration space if that is asked for.
    public init(
        socket: SharedDescriptor, memory: [SharedMemoryRegion], queueCount: Int, configuration: Configuration,
        timeout: Duration = .seconds(5)
    ) throws(SessionError) {
        var connection = FrontEndConnection(socket, timeout: timeout)
        let offered = try connection.exchange(.getFeatures).number()
        guard RingFeatures(rawValue: offered).isSuperset(of: .all) else {
            throw .lacking("ring features: it offers \(String(offered, radix: 16))")
        }
        enablesRings = offered & protocolFeaturesBit != 0
        let agreed = enablesRings ? try Self.agree(&connection, configuration) : []
        if agreed.contains(.multipleQueues) {
            let most = try connection.exchange(.getQueueNumber).number()
            guard most >= UInt64(queueCount) else { throw .lacking("queues: it has \(most)") }
        }
        try connection.send([.init(request: .setOwner)])
        self.configuration = try Self.space(configuration, agreed, &connection)
        self.memory = try SharedMemory(memory)
        self.connection = connection
        self.queueCount = queueCount
        features = offered & Self.deviceBits
        positions = [UInt16](repeating: 0, count: queueCount)
        do {
            errors = try (0..<queueCount).map { _ throws(SystemError) in
                try SharedDescriptor.event()
            }
        } catch {
            throw .system(error)
        }
    }

    private static func agree(
        _ connection: inout FrontEndConnection, _ configuration: Configuration
    ) throws(SessionError) -> ProtocolFeatures {
        var features: ProtocolFeatures = [.multipleQueues, .replyAcknowledge]
        if case .fromBackEnd = configuration { features.insert(.configuration) }
        features.formIntersection(ProtocolFeatures(rawValue: try connection.exchange(.getProtocolFeatures).number()))
        try connection.send([.init(request: .setProtocolFeatures, payload: payload([], [features.rawValue]))])
        connection.acknowledges = features.contains(.replyAcknowledge)
        return features
    }

    private static func space(
        _ configuration: Configuration, _ agreed: ProtocolFeatures, _ connection: inout FrontEndConnection
    ) throws(SessionError) -> [UInt8] {
        let size: Int
        switch configuration {
        case .own(let space): return space
        case .fromBackEnd(let count): size = count
        }
        guard agreed.contains(.configuration) else { throw .lacking("a configuration space") }
        let header = payload([0, UInt32(clamping: size), 0])
        let reply = try connection.exchange(
            .getConfiguration, header + [UInt8](repeating: 0, count: size))
        // A back end that refuses replies with fewer bytes.
        guard reply.payload.count == header.count + size, reply.payload.prefix(8) == header.prefix(8) else {
            throw .malformed(reply.header.request, "\(reply.payload.count) bytes for a space of \(size)")
        }
        return Array(reply.payload.dropFirst(header.count))
    }

    /// A payload: 32-bit numbers, then 64-bit numbers.
    private static func payload(_ halves: [UInt32] = [], _ longs: [UInt64] = []) -> [UInt8] {
        var bytes: [UInt8] = []
        for number in halves { bytes.append(littleEndian: number) }
        for number in longs { bytes.append(littleEndian: number) }
        return bytes
    }

    // MARK: Queues

    /// - Throws: `QueueError` when the driver's geometry is wrong, `SessionError` when the back end fails.
    public func start(queue: Int, _ setup: QueueSetup) throws {
        try setup.geometry.check(in: setup.memory)
        let accepted = setup.features.rawValue | (enablesRings ? protocolFeaturesBit : 0)
        let requests = sessionRequests(accepted) + (try ring(queue, setup))
        try attempt { () throws(SessionError) in
            positions[queue] = setup.position
            try connection.send(requests)
            acceptedFeatures = accepted
            running.insert(queue)
        }
    }

    /// The requests that must come before any ring's: the driver's features and the memory table.
    private func sessionRequests(_ accepted: UInt64) -> [FrontEndConnection.OutgoingRequest] {
        if acceptedFeatures == accepted { return [] }
        let features = FrontEndConnection.OutgoingRequest(request: .setFeatures, payload: Self.payload([], [accepted]))
        return acceptedFeatures == nil ? [features, memory.request] : [features]
    }

    /// The requests that set up a ring. Some back ends serve a ring as soon as they have its kick, so the kick comes last.
    private func ring(_ queue: Int, _ setup: QueueSetup) throws(QueueError) -> [FrontEndConnection.OutgoingRequest] {
        let index = UInt32(queue)
        let geometry = setup.geometry
        // No flags, and no log.
        let addresses = Self.payload(
            [index, 0],
            [
                try memory.userAddress(.descriptors, geometry.descriptorTable),
                try memory.userAddress(.used, geometry.usedRing),
                try memory.userAddress(.available, geometry.availableRing), 0,
            ])
        let requests: [FrontEndConnection.OutgoingRequest] = [
            .init(request: .setVringNumber, payload: Self.payload([index, geometry.size])),
            .init(request: .setVringBase, payload: Self.payload([index, UInt32(setup.position)])),
            .init(request: .setVringAddress, payload: addresses),
            Self.event(.setVringCall, queue, setup.lines.call),
            Self.event(.setVringError, queue, errors[queue]),
            Self.event(.setVringKick, queue, setup.kick),
        ]
        return requests + (enablesRings ? [Self.enableRequest(queue, true)] : [])
    }

    /// The request that sets one of a ring's eventfds. Bit 8 says that there is none.
    private static func event(
        _ request: Request, _ queue: Int, _ descriptor: SharedDescriptor?
    ) -> FrontEndConnection.OutgoingRequest {
        let value = UInt64(queue) | (descriptor == nil ? 1 << 8 : 0)
        return .init(
            request: request, payload: payload([], [value]), descriptors: descriptor.map { [$0.raw] } ?? [])
    }

    private static func enableRequest(_ queue: Int, _ isEnabled: Bool) -> FrontEndConnection.OutgoingRequest {
        .init(request: .setVringEnable, payload: payload([UInt32(queue), isEnabled ? 1 : 0]))
    }

    /// Stops a queue.
    ///
    /// If the back end does not reply, the connection is closed, which stops a correct back end, and the handler of `watch` gets
    /// the error.
    ///
    /// - Returns: the position at which the back end stopped; without a reply, the position at which the queue started.
    public func stop(queue: Int) -> UInt16 {
        // The back end was never told of this ring, so it need not know it.
        guard running.remove(queue) != nil else { return positions[queue] }
        do {
            try attempt { () throws(SessionError) in
                let index = UInt32(queue)
                if enablesRings { try connection.send([Self.enableRequest(queue, false)]) }
                var reply = try connection.exchange(.getVringBase, Self.payload([index, 0])).fields(count: 8)
                let (ring, base) = (reply.u32(), reply.u32())
                guard ring == index, let position = UInt16(exactly: base) else {
                    throw .malformed(Request.getVringBase.rawValue, "base \(base) of ring \(ring)")
                }
                positions[queue] = position
            }
        } catch {
            // `failure` keeps the error, and the handler of `watch` gets it.
        }
        return positions[queue]
    }

    /// Runs `body`, which talks to the back end, unless the connection has failed before.
    private func attempt(_ body: () throws(SessionError) -> Void) throws(SessionError) {
        if let failure = failure.withLock({ $0 }) { throw failure }
        do {
            try body()
        } catch {
            failure.withLock { $0 = error }
            // The back end stops its rings, and `watch` sees the end.
            shutdown(connection.descriptor.raw, Int32(SHUT_RDWR))
            throw error
        }
    }

    // MARK: Failures

    /// Calls `handler` on the loop's thread: once for each ring that the back end stops because of an error, and once when the
    /// connection has ended.
    ///
    /// To be called on the loop's thread. Call `unwatch` before the front end is released.
    public func watch(_ loop: EventLoop, _ handler: @escaping (Failure) -> Void) throws(SystemError) {
        for (queue, event) in errors.enumerated() {
            try loop.add(event.raw, .readable) { [unowned loop] _ in
                // Remove it instead of reading it: the back end holds the descriptor too, and could make a reader block.
                loop.remove(event.raw)
                handler(.ring(queue))
            }
        }
        let socket = connection.descriptor.raw
        try loop.add(socket, .readHangUp) { [unowned self, unowned loop] _ in
            loop.remove(socket)
            handler(.connection(failure.withLock { $0 } ?? .hungUp(0)))
        }
    }

    /// Ends `watch`.
    public func unwatch(_ loop: EventLoop) {
        for event in errors { loop.remove(event.raw) }
        loop.remove(connection.descriptor.raw)
    }
}
