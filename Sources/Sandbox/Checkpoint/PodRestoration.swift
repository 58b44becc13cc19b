import Hypervisor
import LinuxSystem

/// The start of a pod whose machine goes on from a checkpoint.
extension PodLaunch {
    /// Restores the machine: with the shares and interfaces that it had, as they are now. Its containers' processes stand still until
    /// they are started.
    func restore(
        _ restored: RestoredPod, _ plan: SandboxPlan, _ rootfs: RootMounts?, _ user: PodUser
    ) async throws -> RunningPod {
        let checkpoint = restored.checkpoint
        async let mounts = cloneShares(of: plan.container, rootfs)
        let network = try await startNetwork(plan)
        let devices = RestoredDevices(
            shares: try checkpoint.shares(at: await mounts),
            networks: try await network.restore(checkpoint.interfaces))
        let machine = try await startMachine(plan, user, restored: devices)
        // A connection that is made before the guest knows that its others have ended would end with them.
        try await machine.agentReady(within: configuration.agent.startTimeout)
        let link = AgentLink(machine: machine)
        let client = try await connect(link, machine)
        var agent = GuestAgent(client: client, timeout: configuration.agent.requestTimeout)
        if plan.id != checkpoint.container.id { agent.names[plan.id] = checkpoint.container.id }
        let shares = PodShares(machine, restored: checkpoint, container: plan.id, logger: logger)
        return try await runningPod(
            plan, link, agent, network, user, shares, [], nextTarget: checkpoint.nextTarget)
    }
}

extension Checkpoint {
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
