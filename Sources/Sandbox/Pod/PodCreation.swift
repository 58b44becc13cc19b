import LinuxSystem
import OCISpec
import Telemetry

/// What an engine asks for when it creates a container.
package struct ContainerRequest: Sendable {
    package var id: String
    package var bundle: Bundle
    /// The mounts that make the root file system, where the engine's snapshotter describes them; empty: it is in the bundle.
    package var rootfs: [RootMount]
    package var streams: StreamSource
    /// A checkpoint's directory, an absolute path, that the container goes on from; nil: it begins.
    package var checkpoint: String?
    /// As the engine's options and the bundle's annotations have changed it for this pod.
    package var configuration: Configuration

    package init(
        id: String, bundle: Bundle, rootfs: [RootMount] = [], streams: StreamSource, checkpoint: String? = nil,
        configuration: Configuration
    ) {
        self.checkpoint = checkpoint
        self.id = id
        self.bundle = bundle
        self.rootfs = rootfs
        self.streams = streams
        self.configuration = configuration
    }
}

/// The creation of containers: of the first one, with which the pod is made, and of those that join it.
extension Pod {
    /// Makes a container up to the point before its program is executed. With the first one the pod is made, and with its
    /// failure the pod goes.
    ///
    /// - Returns: the pid that engines take for the container's init.
    package func create(_ request: ContainerRequest) async throws -> UInt32 {
        let id = try ContainerID(request.id).value
        guard containers[id] == nil, creations[id] == nil else { throw SandboxError.alreadyExists(id) }
        switch phase {
        case .running(let pod):
            let creation = try Creation(isFirst: false)
            creations[id] = creation
            try await creation.run { try await self.withGuest(pod) { try await self.join(id, request, pod, creation) } }
        case .empty where creations.isEmpty:
            let creation = try Creation(isFirst: true)
            creations[id] = creation
            try await creation.run { try await self.makePod(id, request) }
        case .empty, .launching:
            guard let first = creations.values.first(where: \.isFirst) else { fallthrough }
            let creation = try Creation(isFirst: false)
            creations[id] = creation
            try await creation.run { try await self.join(id, request, after: first, creation) }
        case .ending, .ended: throw SandboxError.wrongState("the pod is \(phase.name)")
        }
        return containers[id]?.pid() ?? 0
    }

    private func makePod(_ id: String, _ request: ContainerRequest) async throws {
        defer { creations[id] = nil }
        let (bundle, configuration) = (request.bundle, request.configuration)
        do {
            let restored = try await restoredPod(id, request)
            let pod = try await launch(
                configuration, bundle: bundle.directory, rootfs: RootMounts(request.rootfs, bundle: bundle),
                restored: restored
            ) {
                try restored?.plan()
                    ?? SandboxPlan(id: id, bundle: bundle, rootfs: request.rootfs, configuration: configuration)
            }
            if let plan = pod.plan.container {
                do {
                    if let restored { expect(restored) }
                    try await build(
                        plan, request, shares: pod.firstShares, restored: restored?.members.first?.saved, in: pod)
                } catch {
                    throw await pod.machine.cause(ofFailedRequest: error)
                }
            }
            try await attachNetwork(pod)
        } catch {
            // The reply is this error, and not that the pod ended.
            creations[id] = nil
            await stop()
            endUnlessUsed()
            throw error
        }
    }

    /// Waits for the container with which the pod is made.
    private func join(
        _ id: String, _ request: ContainerRequest, after first: Creation, _ creation: Creation
    ) async throws {
        await first.ended()
        guard case .running(let pod) = phase, !creation.isCancelled else {
            creations[id] = nil
            throw SandboxError.wrongState("the pod is \(phase.name)")
        }
        try await join(id, request, pod, creation)
    }

    private func join(_ id: String, _ request: ContainerRequest, _ pod: RunningPod, _ creation: Creation) async throws {
        defer { creations[id] = nil }
        if let path = request.checkpoint {
            try await joinRestored(takeAwaited(id, from: path), request, pod)
            if creation.isCancelled { _ = try? await remove(id) }
            return
        }
        do {
            let plan = try await planMember(request, pod)
            do {
                try await makeRoom(for: ContainerLimits(plan.spec.linux?.resources), of: id, pod)
                let mounts = try await plan.cloneShares(RootMounts(request.rootfs, bundle: request.bundle))
                let shares = try await pod.shares.add(mounts, container: id)
                try await build(plan, request, shares: shares, in: pod)
            } catch {
                await removeDisks(of: id, pod)
                await pod.shares.remove(id)
                takeBackRoom(pod)
                throw error
            }
        } catch { throw await pod.machine.cause(ofFailedRequest: error) }
        if creation.isCancelled { _ = try? await remove(id) }
    }

    /// Takes over a container that the pod's restored machine has already.
    private func joinRestored(
        _ member: RestoredPod.Member, _ request: ContainerRequest, _ pod: RunningPod
    ) async throws {
        do { try await build(member.plan, request, shares: [], restored: member.saved, in: pod) } catch {
            await removeFromGuest(member.plan.id, pod)
            await removeDisks(of: member.plan.id, pod)
            await pod.shares.remove(member.plan.id)
            throw await pod.machine.cause(ofFailedRequest: error)
        }
    }

    private func planMember(_ request: ContainerRequest, _ pod: RunningPod) async throws -> SandboxPlan.Container {
        let owners = owners(of: request.bundle.spec.linux?.namespaces ?? [], in: pod)
        let pods = pod.plan.container?.sharedMemory
        let joinsSandbox = isSandbox
        let (plan, warnings) = try await onThread("plan") {
            var (plan, warnings) = try SandboxPlan.Container.planned(
                id: request.id, bundle: request.bundle, rootfs: request.rootfs, request.configuration, owners: owners,
                joinsSandbox: joinsSandbox)
            try plan.separateSharedMemory(from: pods)
            return (plan, warnings)
        }
        for warning in warnings { logger.warning("\(warning)") }
        var named = plan
        for index in plan.podVolumes.indices {
            let name = plan.podVolumes[index].name
            named.podVolumes[index].name = pod.volumeNames[name] ?? name
        }
        return named
    }

    /// Has the guest make a container whose shares the file device has.
    ///
    /// - Parameter restored: the guest has the container already, and its processes stand still.
    private func build(
        _ plan: SandboxPlan.Container, _ request: ContainerRequest, shares: [ShareStorage],
        restored: Checkpoint.Container? = nil, in pod: RunningPod
    ) async throws {
        let (id, bundle) = (plan.id, request.bundle.directory)
        let host = try await hostProcess(plan, request, in: pod)
        var first = try ContainerProcess(
            terminal: plan.spec.process?.terminal ?? false, source: request.streams, host: host)
        var cgroup = ContainerCgroup()
        do {
            cgroup = try await makeCgroup(of: plan, host, in: pod)
            if let restored {
                first.streams = try await openDetachedStreams(of: first, container: id)
                try await pod.addTargets(of: plan, known: restored.sockets)
            } else {
                for volume in plan.podVolumes { try await pod.volumes.provide(volume) }
                let (streams, numbers) = try await openStreams(of: first, container: id, pod)
                first.streams = streams
                let targets = try await pod.addTargets(of: plan)
                try await addDisks(of: plan, pod)
                try await pod.agent.createContainer(plan, shares: shares, targets: targets, streams: numbers)
                logger.phase("container created")
            }
            first.source = nil
        } catch {
            first.streams?.cancel()
            host.end(.exited(255))
            await pod.forgetTargets(of: id)
            await removeCgroup(cgroup)
            throw error
        }
        countRestart(plan.spec)
        await pod.propagation.follow(plan)
        let pid = UInt32(bitPattern: host.pid)
        let hooks = HostHooks(plan, bundle: bundle, pid: pid, logger: logger)
        containers[id] = Container(
            id: id, bundle: bundle, plan: plan, hooks: hooks, cgroup: cgroup, first: first,
            limits: ContainerLimits(plan.spec.linux?.resources))
        containers[id]?.isRestored = restored != nil
        do {
            if let restored { try await goOn(plan, restored, pod) }
            try await hooks.beforeCreation()
        } catch {
            host.end(.exited(255))
            _ = try? await remove(id)
            throw error
        }
        environment.emit(
            .created(container: id, bundle: bundle, streams: first.names, terminal: first.terminal, pid: pid))
        watchOOM(of: id, pod)
        // Before it is started too: it can be killed then, and its machine can end.
        let created = first
        try watch(host, id, exec: "")
        Task { await follow(id, "", created, pod) }
    }

    /// Counts a container that takes the place of one before it: Kubernetes restarts a container as a new one of the same name.
    private func countRestart(_ spec: Spec) {
        let names = ["io.kubernetes.cri.container-name", "io.kubernetes.container.name"]
        guard let name = names.compactMap({ spec.annotations[$0] }).first(where: { !$0.isEmpty }) else { return }
        if !containerNames.insert(name).inserted { MetricFamily.containerRestarts.count() }
    }

    /// Notes what a restored machine has.
    private func expect(_ restored: RestoredPod) {
        nextStream = restored.checkpoint.nextStream
        let others = restored.members.dropFirst()
        prepared = nil
        awaited =
            others.isEmpty
            ? nil
            : AwaitedContainers(
                path: restored.path, members: Dictionary(uniqueKeysWithValues: others.map { ($0.plan.id, $0) }))
    }

    /// Gives a restored guest entropy and the time, and its processes their streams.
    private func goOn(_ plan: SandboxPlan.Container, _ restored: Checkpoint.Container, _ pod: RunningPod) async throws {
        streamsAreDetached = true
        let hostname = plan.spec.hostname == restored.plan.spec.hostname ? "" : plan.spec.hostname
        try await attachStreams(pod, entropy: GuestAgent.entropy(), hostname: hostname)
        for volume in plan.podVolumes { try await pod.volumes.resume(volume) }
        logger.phase("container restored")
    }

    // MARK: Cancelling

    /// Ends the creation of a container.
    ///
    /// - Parameter reason: the reply to whoever asked for the container.
    func cancelCreation(_ creation: Creation, _ reason: SandboxError) {
        creation.cancel(reason)
        // What the first container's creation has made is the pod.
        if creation.isFirst { Task { await stop(isForced: true) } }
    }
}
