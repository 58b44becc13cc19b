import Glibc
public import LinuxSystem
import Synchronization
public import Virtio

/// A vhost-user front end: a device that another process serves, for a machine in this one.
///
/// Kicks and interrupts go between the guest and that process directly, by the eventfds of each `QueueSetup`; this
/// process only says where they are. Calls come from one thread, and each request to the back end has a deadline. The
/// back end is not trusted: whatever it does wrong ends the connection for good, and is told to `watch`'s handler.
public final class VhostUserFrontEnd: BackendDevice {
    /// Where the configuration space comes from.
    public enum Configuration: Sendable, Equatable {
        /// The machine supplies it, as the protocol has it for file systems (`FileDevice.configuration`).
        case own([UInt8])
        /// The back end is asked for so many bytes.
        case asked(size: Int)
    }

    /// What can go wrong between calls.
    public enum Breakage: Error, Sendable, Equatable, CustomStringConvertible {
        /// The back end says that the driver broke a ring.
        case ring(Int)
        /// The back end is gone, or of no more use; it will not be spoken with again.
        case connection(SessionError)

        public var description: String {
            switch self {
            case .ring(let queue): "vhost-user: the back end has given up ring \(queue)"
            case .connection(let error): "\(error)"
            }
        }
    }

    public let features: UInt64
    public let queueCount: Int
    public var ownsConfiguration: Bool { true }
    public let configuration: [UInt8]

    /// Bits of a device itself, below and above those of the ring and the transport (virtio 1.2, 2.2).
    private static let deviceBits: UInt64 = 0xff_ffff | ~0 << 50

    private var connection: FrontEndConnection
    private let memory: SharedMemory
    /// The back end speaks of protocol features; so rings are enabled one by one.
    private let enablesRings: Bool
    /// What the back end was told that the driver accepted; nil before the first start.
    private var acceptedFeatures: UInt64?
    /// Where each queue began to run, or was when it stopped.
    private var positions: [UInt16]
    private var running: Set<Int> = []
    /// The back end signals these when it gives a ring up.
    private let errors: [SharedDescriptor]
    private let failure = Mutex<SessionError?>(nil)

    /// Shakes hands with the back end.
    ///
    /// - Parameters:
    ///   - socket: connected to the back end.
    ///   - memory: all of the guest's memory, 8 regions at most.
    ///   - timeout: what one request may take. Stopping a queue takes as long as what is in work there.
    /// - Throws: `SessionError` where the back end does not answer, answers nonsense, or can't do what is needed:
    ///   `RingFeatures.all`, so many queues, its configuration where that is asked for.
    public init(
        socket: SharedDescriptor, memory: [SharedMemoryRegion], queueCount: Int, configuration: Configuration,
        timeout: Duration = .seconds(5)
    ) throws(SessionError) {
        var connection = FrontEndConnection(socket, timeout: timeout)
        let offered = try connection.ask(.getFeatures).number()
        guard RingFeatures(rawValue: offered).isSuperset(of: .all) else {
            throw .lacking("ring features: it offers \(String(offered, radix: 16))")
        }
        enablesRings = offered & protocolFeaturesBit != 0
        let agreed = enablesRings ? try Self.agree(&connection, configuration) : []
        if agreed.contains(.multipleQueues) {
            let most = try connection.ask(.getQueueNumber).number()
            guard most >= UInt64(queueCount) else { throw .lacking("queues: it has \(most)") }
        }
        try connection.tell([.init(request: .setOwner)])
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
        var wanted: ProtocolFeatures = [.multipleQueues, .replyAcknowledge]
        if case .asked = configuration { wanted.insert(.configuration) }
        wanted.formIntersection(ProtocolFeatures(rawValue: try connection.ask(.getProtocolFeatures).number()))
        try connection.tell([.init(request: .setProtocolFeatures, payload: payload([], [wanted.rawValue]))])
        connection.acknowledges = wanted.contains(.replyAcknowledge)
        return wanted
    }

    private static func space(
        _ configuration: Configuration, _ agreed: ProtocolFeatures, _ connection: inout FrontEndConnection
    ) throws(SessionError) -> [UInt8] {
        let size: Int
        switch configuration {
        case .own(let space): return space
        case .asked(let count): size = count
        }
        guard agreed.contains(.configuration) else { throw .lacking("a configuration space") }
        let place = payload([0, UInt32(clamping: size), 0])
        let answer = try connection.ask(
            .getConfiguration, place + [UInt8](repeating: 0, count: size))
        // A back end that says no answers with fewer bytes.
        guard answer.payload.count == place.count + size, answer.payload.prefix(8) == place.prefix(8) else {
            throw .malformed(answer.header.request, "\(answer.payload.count) bytes for a space of \(size)")
        }
        return Array(answer.payload.dropFirst(place.count))
    }

    /// Numbers of 32 bits, then of 64, as all payloads here are.
    private static func payload(_ words: [UInt32] = [], _ longs: [UInt64] = []) -> [UInt8] {
        var bytes: [UInt8] = []
        for word in words { bytes.append(littleEndian: word) }
        for long in longs { bytes.append(littleEndian: long) }
        return bytes
    }

    // MARK: Queues

    /// - Throws: `QueueError` where the driver's rings are at fault, `SessionError` where the back end is.
    public func start(queue: Int, _ setup: QueueSetup) throws {
        try setup.geometry.check(in: setup.memory)
        let accepted = setup.features.rawValue | (enablesRings ? protocolFeaturesBit : 0)
        let words = announcement(accepted) + (try ring(queue, setup))
        try attempt { () throws(SessionError) in
            positions[queue] = setup.position
            try connection.tell(words)
            acceptedFeatures = accepted
            running.insert(queue)
        }
    }

    /// What the back end must know before any ring: the driver's features, and where memory is.
    private func announcement(_ accepted: UInt64) -> [FrontEndConnection.Word] {
        if acceptedFeatures == accepted { return [] }
        let features = FrontEndConnection.Word(request: .setFeatures, payload: Self.payload([], [accepted]))
        return acceptedFeatures == nil ? [features, memory.word] : [features]
    }

    /// What the back end must know of a ring. Some serve it as soon as they have its kick, so that comes last.
    private func ring(_ queue: Int, _ setup: QueueSetup) throws(QueueError) -> [FrontEndConnection.Word] {
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
        let words: [FrontEndConnection.Word] = [
            .init(request: .setVringNumber, payload: Self.payload([index, geometry.size])),
            .init(request: .setVringBase, payload: Self.payload([index, UInt32(setup.position)])),
            .init(request: .setVringAddress, payload: addresses),
            Self.event(.setVringCall, queue, setup.lines.call),
            Self.event(.setVringError, queue, errors[queue]),
            Self.event(.setVringKick, queue, setup.kick),
        ]
        return words + (enablesRings ? [Self.enabling(queue, true)] : [])
    }

    /// One of a ring's eventfds, or that there is none (bit 8).
    private static func event(
        _ request: Request, _ queue: Int, _ descriptor: SharedDescriptor?
    ) -> FrontEndConnection.Word {
        let value = UInt64(queue) | (descriptor == nil ? 1 << 8 : 0)
        return .init(
            request: request, payload: payload([], [value]), descriptors: descriptor.map { [$0.raw] } ?? [])
    }

    private static func enabling(_ queue: Int, _ isEnabled: Bool) -> FrontEndConnection.Word {
        .init(request: .setVringEnable, payload: payload([UInt32(queue), isEnabled ? 1 : 0]))
    }

    /// Without an answer from the back end, where the queue began to run. Then the connection is closed, which stops an
    /// honest back end; the handler of `watch` is told.
    public func stop(queue: Int) -> UInt16 {
        // A back end need not know of a ring that it was never told of.
        guard running.remove(queue) != nil else { return positions[queue] }
        do {
            try attempt { () throws(SessionError) in
                let index = UInt32(queue)
                if enablesRings { try connection.tell([Self.enabling(queue, false)]) }
                var answer = try connection.ask(.getVringBase, Self.payload([index, 0])).fields(count: 8)
                let (ring, base) = (answer.word(), answer.word())
                guard ring == index, let position = UInt16(exactly: base) else {
                    throw .malformed(Request.getVringBase.rawValue, "base \(base) of ring \(ring)")
                }
                positions[queue] = position
            }
        } catch {
            // Kept in `failure`, and told by `watch`.
        }
        return positions[queue]
    }

    /// Speaks with the back end, unless that failed before; after a failure never again.
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

    /// Calls `handler` on the loop's thread when the back end gives up a ring, once for each, and once when the
    /// connection has ended.
    ///
    /// To be called on the loop's thread; before the front end goes, `unwatch`.
    public func watch(_ loop: EventLoop, _ handler: @escaping (Breakage) -> Void) throws(SystemError) {
        for (queue, event) in errors.enumerated() {
            try loop.add(event.raw, .readable) { [unowned loop] _ in
                // Once, and without reading: the back end holds the descriptor too, and could have a reader wait.
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

    /// Ends what `watch` began.
    public func unwatch(_ loop: EventLoop) {
        for event in errors { loop.remove(event.raw) }
        loop.remove(connection.descriptor.raw)
    }
}
