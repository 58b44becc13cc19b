import Hypervisor
import LinuxSystem

/// The start of a pod whose machine goes on from a checkpoint.
extension PodLaunch {
    /// Restores the machine: with the shares, disks and interfaces that it had, as they are now. Its containers' processes stand still
    /// until they are started.
    func restore(_ restored: RestoredPod, _ plan: SandboxPlan, _ user: PodUser) async throws -> RunningPod {
        let checkpoint = restored.checkpoint
        async let shares = cloneShares(of: restored)
        let network = try await startNetwork(plan)
        let devices = RestoredDevices(
            shares: try await shares, disks: restored.disks,
            networks: try await network.restore(checkpoint.interfaces))
        let machine = try await startMachine(plan, user, restored: devices)
        // A connection that is made before the guest knows that its others have ended would end with them.
        try await machine.agentReady(within: configuration.agent.startTimeout)
        let link = AgentLink(machine: machine)
        let client = try await connect(link, machine)
        var agent = GuestAgent(client: client, timeout: configuration.agent.requestTimeout)
        for member in restored.members where member.plan.id != member.saved.plan.id {
            agent.names[member.plan.id] = member.saved.plan.id
        }
        return try await runningPod(
            plan, link, agent, network, user, PodShares(machine, restored, logger: logger), [], restored: restored)
    }

    /// Each share that the guest knows, with what is there now.
    private func cloneShares(of restored: RestoredPod) async throws -> [RestoredDevices.Share] {
        var shares: [RestoredDevices.Share] = []
        var seen: Set<String> = []
        for member in restored.members {
            let mounts = try await cloneShares(of: member.plan, member.rootfs)
            shares += try member.saved.shares(at: mounts).filter { seen.insert($0.name).inserted }
        }
        return shares
    }
}

extension RestoredPod {
    /// What the guest calls volumes, by the names that they have on this host.
    var volumeNames: [String: String] {
        members.reduce(into: [:]) { $0.merge($1.volumeNames) { first, _ in first } }
    }

    /// The machine's disks, each once.
    fileprivate var disks: [Disk] {
        var seen: Set<String> = []
        return members.flatMap(\.plan.disks).filter { seen.insert($0.id).inserted }
    }
}

extension Checkpoint.Container {
    /// The shares by their names in the guest, with what is there now.
    ///
    /// - Parameter mounts: the container's, in the order of its plan.
    /// - Throws: `SandboxError` where a mount is missing, or is one too many.
    func shares(at mounts: [ShareMount]) throws -> [RestoredDevices.Share] {
        let paths = mounts.map(\.guestPath)
        for (index, share) in shares.enumerated() where index >= paths.count || paths[index] != share.guestPath {
            throw SandboxError.invalid("checkpoint: the mount that the guest has at \(share.guestPath) is missing")
        }
        if paths.count > shares.count {
            throw SandboxError.invalid("checkpoint: the guest has no mount at \(paths[shares.count])")
        }
        var seen: Set<String> = []
        return zip(shares, mounts).filter { seen.insert($0.0.name).inserted }.map { share, mount in
            .init(name: share.name, tree: mount.mount.tree, isReadOnly: share.isReadOnly)
        }
    }
}

/// The containers of a checkpoint that the pod's machine has, and that nobody has asked for yet.
struct AwaitedContainers: Sendable {
    /// The checkpoint's directory.
    let path: String
    /// By their ids on this host.
    var members: [String: RestoredPod.Member]
}

extension Pod {
    /// Says what a pod that is yet to be made goes on from, and what its containers are called: the first container that is created from
    /// the checkpoint makes it, the others join it.
    ///
    /// - Parameters:
    ///   - path: the checkpoint's directory, absolute.
    ///   - containers: all that the checkpoint has.
    /// - Throws: what does not fit, by its name.
    package func prepareRestore(
        from path: String, _ containers: [RestoredContainer], _ configuration: Configuration
    ) async throws {
        guard case .empty = phase, prepared == nil, creations.isEmpty else {
            throw SandboxError.wrongState("restore: the pod is \(phase.name)")
        }
        let restored = try await onThread("checkpoint") { try RestoredPod(path: path, containers, configuration) }
        guard case .empty = phase else { throw SandboxError.wrongState("restore: the pod is \(phase.name)") }
        prepared = restored
    }

    /// What a pod goes on from that is made with this container; nil: it begins.
    func restoredPod(_ id: String, _ request: ContainerRequest) async throws -> RestoredPod? {
        guard let path = request.checkpoint else {
            if let prepared { throw SandboxError.wrongState("the pod is to go on from \(prepared.path)") }
            return nil
        }
        if let prepared {
            guard prepared.path == path, prepared.members.first?.plan.id == id else {
                throw SandboxError.invalid("checkpoint: container \(id) is not the first one of \(prepared.path)")
            }
            return prepared
        }
        let container = RestoredContainer(id: id, bundle: request.bundle, rootfs: request.rootfs)
        let configuration = request.configuration
        return try await onThread("checkpoint") { try RestoredPod(path: path, [container], configuration) }
    }

    /// Takes a container of the checkpoint that the pod has gone on from.
    ///
    /// - Throws: `SandboxError.unsupported` where it has none of this id: a machine that runs takes no other one's processes in.
    func takeAwaited(_ id: String, from path: String) throws -> RestoredPod.Member {
        guard awaited?.path == path, let member = awaited?.members.removeValue(forKey: id) else {
            throw SandboxError.unsupported(
                "restore of container \(id) from \(path) into pod \(environment.id), whose machine runs already, (a checkpoint is "
                    + "of a whole machine: martlet pod restore makes a pod of it)")
        }
        if awaited?.members.isEmpty == true { awaited = nil }
        return member
    }
}
