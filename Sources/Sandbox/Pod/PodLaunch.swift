import AgentAPI
import Glibc
import Hypervisor
import LinuxSystem
import Logging
import PodNetwork
import Synchronization
import TTRPC
import Traces
import Tracing

/// The start of a pod's machine. It runs beside the pod's actor and can be cancelled at any moment.
///
/// What has been made is kept here from the moment it exists, so that whoever ends the launch finds it. Machine, network and
/// the first container's shares are made side by side.
final class PodLaunch: Sendable {
    private struct State {
        var machine: (any VirtualMachine)?
        /// What the machine has started from; nil: it has booted.
        var template: MachineTemplate?
        /// Whether the machine was ready before there was a pod.
        var isFromPool = false
        var network: PodNetworking?
        var cgroup: HostCgroup?
        var user: UInt32?
        var isCancelled = false
    }

    let configuration: Configuration
    let environment: PodEnvironment
    private let bundle: String
    private let state = Mutex(State())
    private let records = OneAtATime()
    private let done: Promise<Void>

    var logger: Logger { environment.logger }

    /// - Parameters:
    ///   - configuration: as the engine's options and annotations have changed it for this pod.
    ///   - bundle: of the first container; written down in the pod's state.
    init(_ configuration: Configuration, bundle: String, in environment: PodEnvironment) throws {
        self.configuration = configuration
        self.bundle = bundle
        self.environment = environment
        done = try Promise()
    }

    /// The machine, from the moment its processes run.
    var machine: (any VirtualMachine)? { state.withLock { $0.machine } }

    // MARK: Starting

    /// Starts everything, and returns when the guest is ready for containers.
    ///
    /// - Parameters:
    ///   - rootfs: the mounts that make the first container's root file system, where its snapshotter describes them.
    ///   - restored: what the pod goes on from; nil: it begins.
    ///   - planning: makes the plan; it may block.
    /// - Throws: what failed first. Whatever has been made then is still there: `release` takes it away.
    func run(
        rootfs: RootMounts?, restored: RestoredPod? = nil, planning: @Sendable @escaping () throws -> SandboxPlan
    ) async throws -> RunningPod {
        defer { done.settle(()) }
        return try await withSpan("launch") { span in
            defer {
                if let trace = span.context.trace { StartSpans(in: trace).record(machine: machine?.processes.first) }
            }
            return try await start(rootfs, restored, planning)
        }
    }

    private func start(
        _ rootfs: RootMounts?, _ restored: RestoredPod?, _ planning: @Sendable @escaping () throws -> SandboxPlan
    ) async throws -> RunningPod {
        let isRestored = restored != nil
        let (plan, user, ready) = try await onThread("plan") { [configuration, environment] in
            var plan = try planning()
            let ready = environment.readyMachine(for: isRestored ? nil : plan)
            if let ready {
                // It grows to what the plan says.
                let held = ready.configuration
                (plan.machine.vcpus, plan.machine.memoryMiB) = (held.vcpus, held.memoryMiB)
                plan.machine.template = held.template
            }
            let file = PodUser.file(root: environment.directory.root)
            return (plan, try ready?.user ?? PodUser.take(configuration.jail, file: file), ready)
        }
        try keep { $0.user = user.id }
        logger.debug("driver: \(plan.driver)")
        for warning in plan.warnings { logger.warning("\(warning)") }
        if let path = plan.cgroup {
            // Before anything is started that belongs there.
            try await joinCgroup(path, plan, with: ready)
        }
        if let restored { return try await restore(restored, plan, user) }
        let mounts = Task { try await cloneShares(of: plan.container, rootfs) }
        async let network = startNetwork(plan)
        let machine = if let ready { try await startMachine(ready) } else { try await startMachine(plan, user) }
        let shares = PodShares(machine, logger: logger)
        async let storages = shares.add(mounts.value, container: plan.id)
        let link = AgentLink(machine: machine)
        let client = if let ready { ready.client } else { try await connect(link, machine) }
        let agent = GuestAgent(client: client, timeout: configuration.agent.requestTimeout)
        try await agent.prepare(plan)
        let (running, firstShares) = try await (network, storages)
        prepareLaterStarts(plan)
        return try await runningPod(plan, link, agent, running, user, shares, firstShares)
    }

    /// - Parameter restored: what the machine has gone on from; nil: it has begun.
    func runningPod(
        _ plan: SandboxPlan, _ link: AgentLink, _ agent: GuestAgent, _ network: PodNetworking, _ user: PodUser,
        _ shares: PodShares, _ firstShares: [ShareStorage], restored: RestoredPod? = nil
    ) async throws -> RunningPod {
        let limit = configuration.agent.requestTimeout
        let volumes = PodVolumes(
            agent.client, limit: limit, copyLimit: configuration.volumes.copyLimit, generation: shares.generation,
            logger: logger)
        let targets = PodTargets(
            link, namespace: network.namespace, limit: limit, next: restored?.checkpoint.nextTarget ?? 1,
            logger: logger)
        let resolvers = PodResolvers(targets, namespace: network.namespace, agent: agent, logger: logger)
        let watch = configuration.agent
        let rest = try await MachineRest(link.machine) { try await Heartbeat(link, agent.client, watch) }
        return RunningPod(
            plan: plan, configuration: configuration, machine: link.machine, network: network,
            cgroup: state.withLock { $0.cgroup }, user: user, link: link, agent: agent, volumes: volumes,
            volumeNames: restored?.volumeNames ?? [:],
            shares: shares, propagation: MountPropagation(agent, shares, rest, logger: logger),
            disks: PodDisks(link.machine, agent, restored: restored, logger: logger), targets: targets,
            resolvers: resolvers, firstShares: firstShares,
            rest: rest)
    }

    private func joinCgroup(
        _ path: HostCgroupPath, _ plan: SandboxPlan, with ready: ConnectedMachine?
    ) async throws {
        let others = ready?.machine.processes.map(\.pid) ?? []
        try await onThread("cgroup") { try HostCgroup.requireUnused(path, but: [getpid()] + others) }
        // Written down before they are made: whoever clears up after a crash knows of them.
        try await record(plan, cgroups: HostCgroup.directories(at: path))
        do {
            let cgroup = try await onThread("cgroup") {
                try HostCgroup(joining: path, plan.cgroupLimits, with: others)
            }
            try keep { $0.cgroup = cgroup }
        } catch  where path.isOwn && !(error is CancellationError) {
            logger.warning("the pod has no bound on the host: cgroup \(path.path): \(error)")
            try await record(plan, cgroups: [])
        }
    }

    func cloneShares(of container: SandboxPlan.Container?, _ rootfs: RootMounts?) async throws -> [ShareMount] {
        guard let container else { return [] }
        logger.phase("rootfs begin")
        let mounts = try await container.cloneShares(rootfs)
        logger.phase("rootfs ready")
        return mounts
    }

    func startNetwork(_ plan: SandboxPlan) async throws -> PodNetworking {
        logger.phase("network begin")
        let network = try await PodNetworking.make(
            plan.network, filtersSources: plan.filtersSources, vcpus: plan.sizing.vcpus, logger: logger)
        try keep { $0.network = network }
        try await record(plan)
        logger.phase("network ready")
        return network
    }

    /// - Parameter restored: what a machine had that goes on from a checkpoint, its plan's template; nil: it begins.
    func startMachine(
        _ plan: SandboxPlan, _ user: PodUser, restored: RestoredDevices? = nil
    ) async throws -> any VirtualMachine {
        logger.phase("machine begin")
        let logger = logger
        var configuration = plan.machine
        configuration.user = user.id
        configuration.cgroups = state.withLock { $0.cgroup?.directories ?? [] }
        let (machine, template) = try await onThread("machine") {
            [configuration] () -> (any VirtualMachine, MachineTemplate?) in
            let driver = plan.makeDriver(logger: logger)
            if let restored { return (try driver.restore(configuration, restored), nil) }
            do { return (try driver.launch(configuration), configuration.template) } catch {
                guard let template = configuration.template else { throw error }
                logger.warning("the pod boots, as the template \(template.directory) can't be used: \(error)")
                var cold = configuration
                cold.template = nil
                return (try driver.launch(cold), nil)
            }
        }
        try keep {
            $0.machine = machine
            $0.template = template
        }
        try await record(plan)
        return machine
    }

    /// Takes a machine of the pool, which goes on.
    private func startMachine(_ ready: ConnectedMachine) async throws -> any VirtualMachine {
        logger.phase("machine begin")
        try keep {
            $0.machine = ready.machine
            $0.template = ready.configuration.template
            $0.isFromPool = true
        }
        try await onThread("machine") { try ready.machine.resume() }
        logger.phase("machine resumed")
        return ready.machine
    }

    /// Has what later pods start from made behind this one: the machines of the pool, with their template, or the template alone.
    private func prepareLaterStarts(_ plan: SandboxPlan) {
        let isPooled = configuration.pool.size > 0
        guard isPooled || configuration.template.mode == .auto && plan.machine.template == nil else { return }
        guard plan.driver.isBuiltIn else {
            return logger.info("the pod boots: templates need the built-in VMM, not \(plan.driver)")
        }
        if let objection = TemplateShape.objection(to: plan.machine) {
            return logger.info("the pod boots: there is no template of a machine like its, as \(objection)")
        }
        let (configuration, cgroup, logger) = (configuration, state.withLock { $0.cgroup }, logger)
        let (vcpus, memoryMiB) = (plan.machine.vcpus, plan.machine.memoryMiB)
        // The pod's own start does not wait for that.
        Task {
            do {
                try await onThread("later starts") {
                    if isPooled {
                        try PoolFill(
                            configuration, vcpus: vcpus, memoryMiB: memoryMiB, count: configuration.pool.size
                        ).startInBackground(outside: cgroup)
                    } else {
                        try BackgroundTemplate(configuration: configuration, vcpus: vcpus, memoryMiB: memoryMiB)
                            .start(outside: cgroup)
                    }
                }
            } catch { logger.warning("nothing is made for later pods: \(error)") }
        }
    }

    func connect(_ link: AgentLink, _ machine: any VirtualMachine) async throws -> AgentServiceClient {
        let ended = try Promise<VMEnd>()
        let watcher = Task { ended.settle(await machine.end()) }
        defer { watcher.cancel() }
        let client = try await link.agent(within: configuration.agent.startTimeout) { ended.current == nil }
        logger.phase("agent connected")
        return client
    }

    /// Keeps what has just been made for `release`.
    ///
    /// - Throws: `CancellationError` once the launch is cancelled.
    private func keep(_ change: (inout State) -> Void) throws {
        let state = state.withLock { state in
            change(&state)
            return state
        }
        if state.isCancelled {
            state.machine?.kill(.ended("the pod was ended while it was being started"))
            throw CancellationError()
        }
    }

    private func record(_ plan: SandboxPlan, cgroups: [String]? = nil) async throws {
        try await records.run { [self] in
            let state = state.withLock { $0 }
            let processes = state.machine?.processes ?? []
            let directories = cgroups ?? state.cgroup?.directories ?? []
            try await onThread("state") { [self] in
                try environment.record(
                    processes: processes, bundle: bundle, cgroups: directories, network: plan.network,
                    namespace: state.network?.namespace?.identity, user: state.user,
                    template: state.template?.name, isFromPool: state.isFromPool)
            }
        }
    }

    // MARK: Ending

    /// Ends what has been started and lets nothing more be started. Returns at once.
    func cancel(_ reason: VMEnd) {
        let machine = state.withLock { state in
            state.isCancelled = true
            return state.machine
        }
        machine?.kill(reason)
    }

    /// Takes away what the launch has made, when `run` has returned.
    func release() async {
        await done.value()
        let state = state.withLock { $0 }
        if let machine = state.machine {
            machine.kill(.ended("the pod was shut down"))
            _ = await machine.end()
        }
        await state.network?.end()
        await state.cgroup?.release()
    }
}
