import AgentContract
import CLinux
import Glibc
import LinuxSystem
import Logging
import Synchronization

/// What a pod's guest may reach on the host: sockets that its containers mount, and resolvers in the pod's network namespace.
///
/// The agent asks for connections to numbered targets on a stream that the host has opened, and the host makes them: only to the
/// targets that are here, so many at once, and so many in a second (`TargetRequests`).
///
/// Safe to use from several threads.
final class PodTargets: Sendable {
    private struct Entry {
        var target: Target
        /// nil: the pod's.
        var container: String?
        var hasWarned = false
    }

    private struct State {
        var next: UInt32 = 1
        var targets: [UInt32: Entry] = [:]
        /// By the agent's number: its target's, and its sockets once they are there.
        var connections: [UInt64: (target: UInt32, sockets: [SharedDescriptor])] = [:]
        /// The agent's requests.
        var requests: SharedDescriptor?
        var hasEnded = false
    }

    private let link: AgentLink
    private let namespace: NetworkNamespace?
    private let limit: Duration
    private let logger: Logger
    /// For what the guest can make happen again and again.
    private let log: PacedLog
    private let state = Mutex(State())
    private let openings = OneAtATime()

    /// - Parameters:
    ///   - namespace: the pod's on the host; nil where it has none.
    ///   - limit: how long the agent may take for a connection.
    ///   - next: the number of the next target.
    init(_ link: AgentLink, namespace: NetworkNamespace?, limit: Duration, next: UInt32 = 1, logger: Logger) {
        state.withLock { $0.next = next }
        self.link = link
        self.namespace = namespace
        self.limit = limit
        self.logger = logger
        log = PacedLog(logger)
    }

    // MARK: Targets

    /// Lets the guest reach a target from now on.
    ///
    /// - Parameters:
    ///   - container: the target goes with it; nil: with the pod.
    ///   - number: by which a restored agent knows it already.
    /// - Returns: the number by which the agent knows it.
    @discardableResult
    func add(_ target: Target, container: String?, number: UInt32? = nil) async throws -> UInt32 {
        try await openings.run { [self] in try await open() }
        return try state.withLock { state in
            if state.hasEnded { throw CancellationError() }
            let taken = number ?? state.next
            state.next = max(state.next, taken + 1)
            state.targets[taken] = Entry(target: target, container: container)
            return taken
        }
    }

    /// The number of the next target.
    var nextNumber: UInt32 { state.withLock { $0.next } }

    /// The numbers of a container's targets, in the order in which they were added.
    func numbers(of container: String) -> [UInt32] {
        state.withLock { $0.targets.filter { $0.value.container == container } }.keys.sorted()
    }

    /// Takes targets away and ends their connections.
    func remove(_ numbers: Set<UInt32>) {
        let sockets = state.withLock { state in
            for number in numbers { state.targets[number] = nil }
            return state.connections.values.filter { numbers.contains($0.target) }.flatMap(\.sockets)
        }
        for socket in sockets { shutdown(socket.raw, Int32(SHUT_RDWR)) }
    }

    /// Takes a container's targets away.
    func remove(container: String) {
        remove(Set(state.withLock { $0.targets.filter { $0.value.container == container } }.keys))
    }

    /// Takes everything away.
    func end() {
        let requests = state.withLock { state in
            state.hasEnded = true
            return state.requests
        }
        if let requests { shutdown(requests.raw, Int32(SHUT_RDWR)) }
        remove(Set(state.withLock { $0.targets.keys }))
    }

    // MARK: Requests

    /// Opens the stream of the agent's requests when the first target comes.
    private func open() async throws {
        if state.withLock({ $0.requests != nil }) { return }
        let stream = try await link.stream(StreamNumber.targets, deadline: limit)
        state.withLock { $0.requests = stream }
        try startThread("targets") { [self] in
            TargetRequests.read(stream) { take($0) }
            logger.debug("the guest asks for no more connections to the host")
        }
    }

    private func take(_ message: TargetMessage) {
        switch message.kind {
        case .passedDescriptor:
            warn(
                message.target,
                "a process of the container passed a descriptor, which can't leave the guest: the connection was closed"
            )
        case .connect:
            guard let target = begin(message) else { return refuse(message.connection) }
            Task { await connect(message, target) }
        }
    }

    /// Takes a place for a connection; nil when there is none, or no such target.
    private func begin(_ message: TargetMessage) -> Target? {
        state.withLock { state in
            guard let entry = state.targets[message.target], !state.hasEnded,
                state.connections.count < TargetMessage.maximumConnections, state.connections[message.connection] == nil
            else { return nil }
            state.connections[message.connection] = (message.target, [])
            return entry.target
        }
    }

    private func connect(_ message: TargetMessage, _ target: Target) async {
        defer { state.withLock { $0.connections[message.connection] = nil } }
        let local: SharedDescriptor
        do {
            local = try await onThread("target") { [namespace] in try target.connect(in: namespace) }
        } catch {
            warn(message.target, "\(error)")
            return refuse(message.connection)
        }
        do {
            let guest = try await link.stream(
                StreamNumber.targetConnection(message.connection), deadline: limit)
            guard keep([local, guest], message) else { return }
            let end = try await onThread("target relay") { target.carry(local, guest) }
            if end == .descriptorPassed {
                warn(
                    message.target,
                    "its server passed a descriptor, which can't enter the guest: the connection was closed")
            }
        } catch {
            log.write(.debug, "\(target): \(error)")
            refuse(message.connection)
        }
    }

    /// Notes the sockets of a connection, which end with its target.
    ///
    /// - Returns: whether the target is still there.
    private func keep(_ sockets: [SharedDescriptor], _ message: TargetMessage) -> Bool {
        state.withLock { state in
            state.connections[message.connection]?.sockets = sockets
            return state.targets[message.target] != nil
        }
    }

    private func refuse(_ connection: UInt64) {
        guard let requests = state.withLock({ $0.requests }) else { return }
        var bytes: [UInt8] = []
        bytes.append(littleEndian: connection)
        // An agent that does not read gets no answers, and no part of one either.
        let sent = send(requests.raw, bytes, bytes.count, Int32(MSG_NOSIGNAL | MSG_DONTWAIT))
        if sent != bytes.count { shutdown(requests.raw, Int32(SHUT_RDWR)) }
    }

    /// Once for each target: the guest decides how often something happens.
    private func warn(_ number: UInt32, _ message: String) {
        let entry = state.withLock { state in
            defer { state.targets[number]?.hasWarned = true }
            return state.targets[number]
        }
        guard let entry else { return }
        if entry.hasWarned {
            log.write(.debug, "\(entry.target): \(message)")
        } else {
            logger.warning("\(entry.target): \(message)")
        }
    }
}

extension RunningPod {
    /// Lets a container reach what its plan names.
    ///
    /// - Parameter known: the numbers by which a restored agent knows its sockets.
    /// - Returns: the numbers of its sockets, in their order.
    @discardableResult
    func addTargets(of plan: SandboxPlan.Container, known: [UInt32] = []) async throws -> [UInt32] {
        await resolvers.add(plan)
        var numbers: [UInt32] = []
        for (index, socket) in plan.sockets.enumerated() {
            let number = index < known.count ? known[index] : nil
            numbers.append(
                try await targets.add(.socket(path: socket.source), container: plan.id, number: number))
        }
        return numbers
    }

    func forgetTargets(of container: String) async {
        await resolvers.remove(container)
        targets.remove(container: container)
    }
}
