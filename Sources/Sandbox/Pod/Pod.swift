import Glibc
import Hypervisor
import LinuxSystem
import Logging
import OCISpec
import Telemetry

/// A pod, from nothing to gone: one virtual machine, its network, its cgroup on the host and its containers.
///
/// It is the only owner of the pod's life cycle and speaks the sandbox's own types. Adapters (the Task service, the Sandbox
/// service, inspection) turn wire types into its calls and keep nothing. No call blocks: what takes time runs beside the
/// actor, so a kill, a deletion or a shutdown is answered at any moment, in the middle of a launch too.
package actor Pod {
    let environment: PodEnvironment
    var phase = PodPhase.empty
    var containers: [String: Container] = [:]
    /// The containers that are being created.
    var creations: [String: Creation] = [:]
    /// Of the next stream of a process; the agent knows streams by their numbers.
    var nextStream: UInt64 = 1
    /// Further processes that are being started.
    var startingProcesses = 0
    /// How often files are being copied between containers and the host.
    var copies = 0
    /// Whether processes' streams have no connections now, and no process can be started.
    var streamsAreDetached = false
    /// Whether the engine knows of the pod by itself and ends it itself: its containers come and go.
    var isSandbox = false
    /// The pod's process on the host, where its engine makes the pod without a container.
    var sandboxProcess: HostProcess?
    /// Changes of what is written down about the running pod.
    let stateWrites = OneAtATime()
    /// Nanoseconds since the epoch; 0: not yet.
    var createdAt: Int64 = 0
    var endedAt: Int64 = 0
    /// Settled when the server has nothing more to do.
    package nonisolated let finished: Promise<Void>

    /// The tools that the guest has (`MachineTool`): their paths on the host, by their names.
    var machineTools: [String: String] = [:]
    /// The names that the engine gave the containers so far.
    var containerNames: Set<String> = []
    /// Counts the machine's end.
    private var endCount: Task<Void, Never>?
    /// Has the guest give memory back while the pod is idle.
    private var idleness: Task<Void, Never>?

    /// What the machine has got while it ran; nil: nothing.
    var machineSize: MachineSize?
    let sizeChanges = OneAtATime()
    /// A checkpoint is being written.
    var isBeingSaved = false
    /// What the pod is to go on from when its first container is created; nil: nobody has said.
    var prepared: RestoredPod?
    /// Of the checkpoint that the pod has gone on from, the containers that are yet to be created; nil: none.
    var awaited: AwaitedContainers?

    var logger: Logger { environment.logger }

    package init(_ environment: PodEnvironment) throws {
        self.environment = environment
        finished = try Promise()
    }

    // MARK: State

    /// The machine, from the moment its processes run.
    var machine: (any VirtualMachine)? {
        switch phase {
        case .launching(let launch): launch.machine
        case .running(let pod): pod.machine
        case .empty, .ending, .ended: nil
        }
    }

    /// The guest's console, also while the machine is still starting.
    ///
    /// - Throws: `SandboxError.wrongState` where there is no machine.
    package func console() throws -> Console {
        guard let machine else { throw SandboxError.wrongState("pod \(environment.id) is \(phase.name): no machine") }
        return machine.console
    }

    /// The running pod.
    ///
    /// - Throws: `SandboxError.notFound`: engines take it as the end of what they ask for.
    func running() throws -> RunningPod {
        guard case .running(let pod) = phase else { throw SandboxError.notFound("container \(environment.id)") }
        return pod
    }

    /// Asks something of the running machine. When that fails since the machine has ended, its end is the error.
    func withRunning<R>(_ body: (RunningPod) async throws -> R) async throws -> R {
        let pod = try running()
        do { return try await withGuest(pod) { try await body(pod) } } catch {
            // Whoever asked has gone, or waits no longer: the agent's connection is not lost for that.
            if Task.isCancelled { throw error }
            throw await pod.machine.cause(ofFailedRequest: error)
        }
    }

    // MARK: Launching

    /// Starts the pod's machine.
    ///
    /// - Throws: what failed, or how the machine ended; the caller stops the pod then.
    func launch(
        _ configuration: Configuration, bundle: String, rootfs: RootMounts? = nil, restored: RestoredPod? = nil,
        planning: @Sendable @escaping () throws -> SandboxPlan
    ) async throws -> RunningPod {
        guard case .empty = phase else { throw SandboxError.wrongState("the pod is \(phase.name)") }
        let launch = try PodLaunch(configuration, bundle: bundle, in: environment)
        StartPhases.begin(at: monotonicNanoseconds())
        MetricFamily.containerRestarts.declare()
        phase = .launching(launch)
        do {
            let pod = try await launch.run(rootfs: rootfs, restored: restored, planning: planning)
            guard case .launching = phase else {
                await pod.rest.end()
                throw CancellationError()
            }
            phase = .running(pod)
            if restored != nil { try await readSize(of: pod) }
            try await growToPlan(pod)
            createdAt = wallClockNanoseconds()
            idleness = watchForIdleness(pod)
            endCount = Task { [tally = EndTally(root: environment.directory.root), logger] in
                let end = await pod.machine.end()
                MetricFamily.machineEnds.count([end.cause])
                do { try tally.count(end) } catch { logger.debug("the machine's end is not counted: \(error)") }
            }
            return pod
        } catch {
            throw await launch.machine?.cause(ofFailedLaunch: error) ?? error
        }
    }

    // MARK: Ending

    /// Ends the pod when it has no container any more: an engine asks for each container that it deletes. One that is being
    /// launched ends at once.
    package func shutdown() async {
        if isSandbox { return }
        if case .running = phase, !containers.isEmpty || !creations.isEmpty { return }
        await end()
    }

    /// Ends the pod, whatever it is doing, and lets the server go.
    package func end() async {
        await stop()
        finished.settle(())
    }

    /// Ends the pod, whatever it is doing. Returns when nothing is left of it; the server goes on to answer.
    ///
    /// - Parameter isForced: the machine is killed at once; otherwise the guest syncs and powers off first.
    package func stop(isForced: Bool = false) async {
        switch phase {
        case .empty: phase = .ended
        case .launching(let launch):
            launch.cancel(.ended("the pod was shut down"))
            await end(launch.machine) { await launch.release() }
        case .running(let pod):
            if isForced { pod.machine.kill(.ended("the pod was killed")) }
            await end(pod.machine) { await self.powerOff(pod) }
        case .ending(let task, let machine):
            if isForced { machine?.kill(.ended("the pod was killed")) }
            await task.value
        case .ended: break
        }
    }

    private func end(_ machine: (any VirtualMachine)?, _ release: @Sendable @escaping () async -> Void) async {
        let task = Task {
            await release()
            await endCount?.value
            sandboxProcess?.end(.exited(0))
            phase = .ended
            if endedAt == 0 { endedAt = wallClockNanoseconds() }
        }
        phase = .ending(task, machine: machine)
        idleness?.cancel()
        environment.directory.markEnding()
        for creation in creations.values { creation.cancel(SandboxError.wrongState("the pod was ended")) }
        await task.value
    }

    /// The guest syncs and powers off, or is killed when it does not; then everything else of the pod goes.
    private func powerOff(_ pod: RunningPod) async {
        await pod.rest.end()
        pod.targets.end()
        await waiting(atMost: .seconds(2)) { await pod.volumes.end() }
        await pod.propagation.end()
        try? await pod.agent.destroySandbox(timeout: .seconds(2))
        _ = await pod.machine.end(within: .seconds(3), otherwise: "the guest did not power off")
        for container in containers.values {
            for process in container.processes { process.streams?.cancel() }
        }
        await pod.network.end()
        await pod.cgroup?.release()
    }

    /// Ends the server if it has no pod when as much time has passed as one may take to start: an engine that died before it
    /// asked for one, or before it was told of a failure, asks for nothing any more.
    package func endUnlessUsed() {
        let limit = environment.configuration.agent.startTimeout
        Task {
            try await Task.sleep(for: limit)
            switch phase {
            case .empty, .ending, .ended: await end()
            case .launching, .running: return
            }
        }
    }
}
