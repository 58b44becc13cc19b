import Hypervisor
import LinuxSystem
import OCISpec

/// Checkpoints of a pod that runs.
extension Pod {
    /// Writes a checkpoint of the pod, whose only container `id` is.
    ///
    /// - Parameters:
    ///   - path: of the checkpoint's directory, absolute; made where it is not there.
    ///   - isLeftRunning: the container goes on; else it has ended, as of SIGKILL, when this returns.
    /// - Throws: what can't be saved, by name; or what failed. Nothing is left of the checkpoint then, and the container goes on.
    package func checkpoint(_ id: String, to path: String, isLeftRunning: Bool) async throws {
        try await withRunning { pod in
            let shape = try await onThread("checkpoint") {
                try TemplateShape.required(
                    for: "a checkpoint", pod.plan, tenant: pod.configuration.template.tenant)
            }
            let isPaused = try refuseUnsavable(id, pod)
            isBeingSaved = true
            defer { isBeingSaved = false }
            let directory = try await onThread("checkpoint") { try CheckpointDirectory(making: path) }
            do {
                try await stoppingContainer(id, isPaused, pod) {
                    try await detachStreams(pod)
                    let begin = monotonicNanoseconds()
                    try await pod.rest.stop()
                    let machine = pod.machine
                    try await onThread("checkpoint") { try machine.save(to: directory.machine, withShares: true) }
                    let milliseconds = (monotonicNanoseconds() - begin) / 1_000_000
                    logger.info("container \(id): its machine was saved in \(milliseconds) ms to \(path)")
                    let checkpoint = try await self.checkpoint(of: id, shape, pod)
                    try await onThread("checkpoint") { try directory.finish(checkpoint) }
                    if !isLeftRunning { endCheckpointed(id, pod) }
                }
            } catch {
                _ = try? await onThread("checkpoint") { directory.discard() }
                throw error
            }
            if !isLeftRunning { await waitForEnds(of: id) }
        }
    }

    /// Calls `body` while no process of the container runs, and has everything go on afterwards, unless the machine has ended.
    private func stoppingContainer(
        _ id: String, _ isPaused: Bool, _ pod: RunningPod, _ body: () async throws -> Void
    ) async throws {
        if !isPaused { try await pod.agent.pause(id) }
        let result: Result<Void, any Error>
        do {
            try await body()
            result = .success(())
        } catch { result = .failure(error) }
        do { try await goOn(id, isPaused, pod) } catch {
            let machine = pod.machine
            machine.kill(.ended("the pod did not go on after its checkpoint: \(error)"))
            try result.get()
            throw error
        }
        try result.get()
    }

    private func goOn(_ id: String, _ isPaused: Bool, _ pod: RunningPod) async throws {
        guard [.running, .paused].contains(pod.machine.state) else { return }
        try await pod.rest.goOn()
        try await attachStreams(pod)
        if !isPaused { try await pod.agent.resume(id) }
    }

    private func endCheckpointed(_ id: String, _ pod: RunningPod) {
        containers[id]?.first.isKilled = true
        pod.machine.kill(.ended("the pod was checkpointed"))
    }

    private func waitForEnds(of id: String) async {
        guard let exit = containers[id]?.first.exit else { return }
        await waiting(atMost: .seconds(10)) { _ = await exit.value() }
    }

    // MARK: What is saved

    /// - Returns: whether somebody has paused the container.
    private func refuseUnsavable(_ id: String, _ pod: RunningPod) throws -> Bool {
        let container = try find(id)
        if isBeingSaved { throw SandboxError.wrongState("a checkpoint of the pod is being written") }
        guard container.first.phase.isAlive else {
            throw SandboxError.wrongState("container \(id) is \(container.first.phase.name), not running")
        }
        if isSandbox || containers.count > 1 || !creations.isEmpty {
            let others = containers.keys.filter { $0 != id }.sorted()
            throw SandboxError.unsupported("a checkpoint of a pod with other containers \(others)")
        }
        if let exec = container.execs.first(where: { $0.value.phase.isAlive }) {
            throw SandboxError.unsupported("a checkpoint while exec \(exec.key) runs in container \(id)")
        }
        if !container.plan.disks.isEmpty { throw SandboxError.unsupported("a checkpoint of a container with disks") }
        if let volume = container.plan.podVolumes.first {
            throw SandboxError.unsupported("a checkpoint of a container with a volume that is copied (\(volume.title))")
        }
        return container.first.phase == .paused
    }

    private func checkpoint(
        of id: String, _ shape: TemplateShape, _ pod: RunningPod
    ) async throws -> Checkpoint {
        let container = try find(id)
        var plan = container.plan
        plan.id = pod.agent.names[id] ?? id
        return Checkpoint(
            created: Timestamp.now(), shape: shape, container: plan,
            terminal: container.first.terminal, sockets: pod.targets.numbers(of: id), shares: pod.shares.saved(id),
            generation: pod.shares.generation, interfaces: await pod.network.saved(), nextStream: nextStream,
            nextTarget: pod.targets.nextNumber)
    }
}
