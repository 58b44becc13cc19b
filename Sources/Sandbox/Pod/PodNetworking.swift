import Glibc
import Hypervisor
import LinuxSystem
import Logging
import OCISpec
import PodNetwork

extension SandboxPlan {
    /// Where the pod's network is.
    public enum Network: Sendable, Equatable, Codable {
        /// In a new network namespace of the host.
        case new
        /// In the network namespace that somebody made at this path.
        case existing(path: String)
        /// Nowhere: the specification has no network namespace, and the guest gets no interface.
        case none

        init(_ spec: Spec) {
            guard let entry = spec.linux?.namespaces.first(where: { $0.kind == .network }) else {
                self = .none
                return
            }
            self = entry.path.isEmpty ? .new : .existing(path: entry.path)
        }
    }
}

/// A pod's network: what is in its network namespace on the host, and the same in the guest, for as long as the pod lives.
actor PodNetworking {
    private let network: PodNetwork?
    private let logger: Logger
    private let updates = OneAtATime()
    private var pod: RunningPod?
    private var watch: NetworkWatch?
    private var forwarding: LoopbackForwarding?
    /// What the guest has.
    private var plan = NetworkPlan()
    private var hasEnded = false
    /// Of the pod's interfaces those that the machine has yet to get.
    private var pending: [NetworkConnection] = []
    /// The hardware addresses of interfaces that a restored machine has and the pod has not.
    private var strange: [[UInt8]] = []

    /// On the host; nil: the pod has none.
    nonisolated var namespace: NetworkNamespace? { network?.namespace }

    /// What went between host and guest so far, by interface. Blocks.
    nonisolated func statistics() throws -> [(interface: String, counts: LinkStatistics)] {
        try network?.statistics() ?? []
    }

    /// Makes or opens the namespace.
    ///
    /// - Parameters:
    ///   - filtersSources: whether the guest's frames pass only from the pod's own addresses.
    ///   - vcpus: of the machine; each gets a pair of an interface's queues of its own.
    static func make(
        _ choice: SandboxPlan.Network, filtersSources: Bool, vcpus: Int, logger: Logger
    ) async throws -> PodNetworking {
        let network: PodNetwork? = try await onThread("network") {
            let queues = min(vcpus, Tap.maximumQueues)
            let path: String?
            switch choice {
            case .new: path = nil
            case .existing(let existing): path = existing
            case .none: return nil
            }
            return try PodNetwork(path: path, queues: queues, filtersSources: filtersSources)
        }
        return PodNetworking(network, logger)
    }

    private init(_ network: PodNetwork?, _ logger: Logger) {
        self.network = network
        self.logger = logger
    }

    /// Gives the pod's machine what is there, and from now on whatever changes. To be called when the hooks have run that
    /// set networks up.
    func attach(to pod: RunningPod) async throws {
        guard let network else { return }
        self.pod = pod
        // Before the first look, so that nothing is missed in between.
        watch = try NetworkWatch(network.namespace) { [weak self] in
            Task { await self?.follow() }
        }
        try await refresh()
        // Nothing waits for this: nobody listens in the guest yet.
        Task { await forward(network.namespace, pod) }
    }

    private func forward(_ namespace: NetworkNamespace, _ pod: RunningPod) async {
        do {
            let forwarding = try await LoopbackForwarding(
                of: pod.plan.id, namespace, pod.link, limit: pod.agent.timeout, logger: logger)
            if hasEnded { forwarding.end() } else { self.forwarding = forwarding }
        } catch {
            if !hasEnded { logger.warning("network: 127.0.0.1 does not reach the pod's ports: \(error)") }
        }
    }

    private func follow() async {
        do { try await refresh() } catch {
            if !hasEnded { logger.warning("network: a change did not reach the guest: \(error)") }
        }
    }

    /// Has the guest see what is there now: engines add interfaces between a container's creation and its start.
    func refresh() async throws {
        try await updates.run { try await self.converge() }
    }

    private func converge() async throws {
        guard let network, let pod, !hasEnded else { return }
        try await pod.rest.begin()
        defer { Task { await pod.rest.finish() } }
        let machine = pod.machine
        try await removeInterfaces(network, pod)
        try await removeStrangeInterfaces(network, pod)
        let pending = pending
        self.pending = []
        let plan = try await onThread("network") {
            var connections = try (pending + network.connect())[...]
            do {
                while let interface = connections.first {
                    try machine.addNetwork(
                        hardwareAddress: interface.hardwareAddress, queues: interface.queues.map(\.raw))
                    connections.removeFirst()
                }
            } catch {
                for connection in connections { network.drop(connection) }
                throw error
            }
            return try network.plan()
        }
        if plan != self.plan { try await update(plan, pod) }
        await pod.resolvers.update()
    }

    // MARK: Restored machines

    /// The interfaces that the guest has, in the order in which the machine got them.
    func saved() -> [Checkpoint.Interface] {
        (network?.connected ?? []).map { .init(hardwareAddress: $0.hardwareAddress, pairs: $0.queues) }
    }

    /// Connects the pod's interfaces.
    ///
    /// - Parameter saved: those of the machine when it was saved. One whose hardware address the pod does not have leads nowhere, and is
    ///   taken away as soon as the machine runs.
    /// - Returns: what the machine is restored with.
    func restore(_ saved: [Checkpoint.Interface]) async throws -> [RestoredDevices.Network] {
        let network = network
        let (devices, strange, left) = try await onThread("network") {
            var present = try network?.connect() ?? []
            var (devices, strange): ([RestoredDevices.Network], [[UInt8]]) = ([], [])
            for interface in saved {
                let address = interface.hardwareAddress
                let same = present.firstIndex {
                    $0.hardwareAddress == address && $0.queues.count == interface.pairs
                }
                if same == nil { strange.append(address) }
                let queues =
                    try same.map { present.remove(at: $0).queues }
                    ?? PodNetwork.makePlaceholder(queues: interface.pairs)
                devices.append(.init(hardwareAddress: address, queues: queues))
            }
            return (devices, strange, present)
        }
        (self.strange, pending) = (strange, left)
        return devices
    }

    /// Takes away what a restored machine has of the pod that it was saved in.
    private func removeStrangeInterfaces(_ network: PodNetwork, _ pod: RunningPod) async throws {
        if strange.isEmpty { return }
        let pending = Set(pending.map(\.hardwareAddress))
        let (machine, removed) = (pod.machine, strange)
        var plan = try await onThread("network") { try network.plan() }
        plan.interfaces.removeAll { pending.contains($0.hardwareAddress) }
        let names = Set(plan.interfaces.map(\.name))
        plan.routes.removeAll { !names.contains($0.device) }
        plan.neighbours.removeAll { !names.contains($0.device) }
        try await update(plan, pod)
        try await onThread("network") {
            for hardwareAddress in removed { try machine.removeNetwork(hardwareAddress: hardwareAddress) }
        }
        strange = []
    }

    /// Removes the interfaces that are gone from the namespace. The guest releases them first: a driver that lost its device
    /// would keep the device's slot from the next one. The machine takes them away even if the guest does not.
    private func removeInterfaces(_ network: PodNetwork, _ pod: RunningPod) async throws {
        let machine = pod.machine
        let removed = try await onThread("network") { try network.release() }
        if removed.isEmpty { return }
        let released: Result<Void, any Error>
        do {
            let plan = try await onThread("network") { try network.plan() }
            released = .success(try await update(plan, pod))
        } catch {
            released = .failure(error)
        }
        try await onThread("network") {
            for hardwareAddress in removed { try machine.removeNetwork(hardwareAddress: hardwareAddress) }
        }
        try released.get()
    }

    /// Makes the guest's network what `plan` says.
    private func update(_ plan: NetworkPlan, _ pod: RunningPod) async throws {
        for warning in plan.warnings where !self.plan.warnings.contains(warning) {
            logger.warning("network: \(warning)")
        }
        try await pod.agent.updateNetwork(plan)
        self.plan = plan
        logger.phase("network updated")
    }

    /// Takes everything away that was made in the namespace.
    func end() async {
        hasEnded = true
        watch = nil
        forwarding?.end()
        await updates.settle()
        let network = network
        _ = try? await onThread("network end") { network?.disconnect() }
    }
}
