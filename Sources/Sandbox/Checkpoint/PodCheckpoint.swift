import Hypervisor
import LinuxSystem
import OCISpec

/// What a checkpoint is asked of.
package enum CheckpointScope: Sendable, Equatable {
    /// A container that is alone in its pod, or with the container that stands for the pod.
    case container(String)
    /// The pod with all of its containers.
    case pod
}

/// Checkpoints of a pod that runs.
extension Pod {
    /// Writes a checkpoint of the pod's machine.
    ///
    /// - Parameters:
    ///   - scope: what is asked for; a machine is always saved whole.
    ///   - path: of the checkpoint's directory, absolute; made where it is not there.
    ///   - isLeftRunning: the containers go on; else they have ended, as of SIGKILL, when this returns.
    /// - Throws: what can't be saved, by name; or what failed. Nothing is left of the checkpoint then, and the containers go on.
    package func checkpoint(_ scope: CheckpointScope, to path: String, isLeftRunning: Bool) async throws {
        try await checkpoint(scope, to: path, isLeftRunning: isLeftRunning, isTemporary: false)
    }

    /// - Parameter isTemporary: the checkpoint is written down as one that goes with the pod.
    func checkpoint(
        _ scope: CheckpointScope, to path: String, isLeftRunning: Bool, isTemporary: Bool
    ) async throws {
        try await withRunning { pod in
            let shape = try await onThread("checkpoint") {
                try TemplateShape.required(
                    for: "a checkpoint", pod.plan, tenant: pod.configuration.template.tenant)
            }
            let ids = try savedContainers(scope, pod)
            isBeingSaved = true
            defer { isBeingSaved = false }
            let directory = try await onThread("checkpoint") { try CheckpointDirectory(planning: path) }
            let record = directory.record(isTemporary: isTemporary)
            do {
                try await note(record)
                try await onThread("checkpoint") { try directory.make() }
                await removeStoppedFromGuest(pod)
                try await stopping(ids, pod) {
                    try await detachStreams(pod)
                    let begin = monotonicNanoseconds()
                    try await pod.rest.stop()
                    let machine = pod.machine
                    try await onThread("checkpoint") { try machine.save(to: directory.machine, withShares: true) }
                    let milliseconds = (monotonicNanoseconds() - begin) / 1_000_000
                    logger.info("containers \(ids): their machine was saved in \(milliseconds) ms to \(path)")
                    let checkpoint = try await self.checkpoint(of: ids, shape, pod)
                    try await onThread("checkpoint") { try directory.finish(checkpoint) }
                    if !isLeftRunning { endCheckpointed(ids, pod) }
                }
            } catch {
                _ = try? await onThread("checkpoint") { directory.discard() }
                try? await forget(record)
                throw error
            }
            if !isTemporary { try? await forget(record) }
            if !isLeftRunning { await waitForEnds(of: ids) }
        }
    }

    /// Calls `body` while no process of the containers runs, and has everything go on afterwards, unless the machine has ended.
    private func stopping(_ ids: [String], _ pod: RunningPod, _ body: () async throws -> Void) async throws {
        var paused: [String] = []
        let result: Result<Void, any Error>
        await pod.propagation.hold()
        do {
            for id in ids { try refuseLaterMounts(find(id), pod) }
            // Somebody may have paused the others.
            for id in ids where containers[id]?.first.phase == .running {
                try await pod.agent.pause(id)
                paused.append(id)
            }
            try await body()
            result = .success(())
        } catch { result = .failure(error) }
        do {
            // In a task of its own: when whoever asked has gone, this one is cancelled, and the containers go on all the same.
            try await Task { [paused] in try await goOn(paused, pod) }.value
            await pod.propagation.goOn()
        } catch {
            let machine = pod.machine
            machine.kill(.ended("the pod did not go on after its checkpoint: \(error)"))
            try result.get()
            throw error
        }
        try result.get()
    }

    private func goOn(_ paused: [String], _ pod: RunningPod) async throws {
        guard [.running, .paused].contains(pod.machine.state) else { return }
        try await pod.rest.goOn()
        try await attachStreams(pod)
        for id in paused { try await pod.agent.resume(id) }
    }

    private func endCheckpointed(_ ids: [String], _ pod: RunningPod) {
        for id in ids { containers[id]?.first.isKilled = true }
        pod.machine.kill(.ended("the pod was checkpointed"))
    }

    private func waitForEnds(of ids: [String]) async {
        let exits = ids.compactMap { containers[$0]?.first.exit }
        await waiting(atMost: .seconds(10)) { for exit in exits { _ = await exit.value() } }
    }

    // MARK: What is left after a crash

    /// Writes down that there is something of a checkpoint.
    private func note(_ record: CheckpointDirectory.Record) async throws {
        try await changeState { $0.checkpoints = ($0.checkpoints ?? []) + [record] }
    }

    /// There is nothing left of a checkpoint, or it stays.
    func forget(_ record: CheckpointDirectory.Record) async throws {
        try await changeState { state in
            let others = (state.checkpoints ?? []).filter { $0 != record }
            state.checkpoints = others.isEmpty ? nil : others
        }
    }

    private func changeState(_ change: @Sendable @escaping (inout StateDirectory.State) -> Void) async throws {
        let directory = environment.directory
        try await stateWrites.run {
            try await onThread("state") {
                guard var state = directory.read() else { return }
                change(&state)
                try directory.write(state)
            }
        }
    }

    // MARK: What is saved

    /// What can't be saved is refused by its name.
    ///
    /// - Returns: the containers that have begun and not ended, the one that the pod was made with first.
    private func savedContainers(_ scope: CheckpointScope, _ pod: RunningPod) throws -> [String] {
        if case .container(let id) = scope { try refuseAlone(find(id)) }
        if isBeingSaved { throw SandboxError.wrongState("a checkpoint of the pod is being written") }
        if let id = creations.keys.min() { throw SandboxError.wrongState("container \(id) is being created") }
        if let id = awaited?.members.keys.min() {
            throw SandboxError.wrongState("container \(id) of the pod's own checkpoint has not been restored yet")
        }
        let present = containers.values.filter { !$0.first.phase.isStopped }
        if present.isEmpty { throw SandboxError.wrongState("no container of the pod runs") }
        for container in present { try refuseUnsavable(container) }
        let ids = present.map(\.id).sorted()
        let first = ids.filter { $0 == pod.plan.container?.id }
        return first + ids.filter { !first.contains($0) }
    }

    /// A container is checkpointed by itself only where nothing else than what stands for its pod is in the machine.
    private func refuseAlone(_ container: Container) throws {
        guard container.first.phase.isAlive else {
            throw SandboxError.wrongState("container \(container.id) is \(container.first.phase.name), not running")
        }
        let others = containers.values.filter {
            $0.id != container.id && !$0.first.phase.isStopped && !PodRequest($0.plan.spec).isSandbox
        }
        if others.isEmpty { return }
        throw SandboxError.unsupported(
            "a checkpoint of container \(container.id) without containers \(others.map(\.id).sorted()) of its pod, which are "
                + "in the same machine (martlet pod checkpoint saves all of them)")
    }

    private func refuseUnsavable(_ container: Container) throws {
        let id = container.id
        guard container.first.phase.isAlive else {
            throw SandboxError.wrongState("container \(id) is \(container.first.phase.name), not running")
        }
        if let exec = container.execs.first(where: { $0.value.phase.isAlive }) {
            throw SandboxError.unsupported("a checkpoint while exec \(exec.key) runs in container \(id)")
        }
        if let disk = container.plan.disks.first(where: { !$0.readOnly }) {
            throw SandboxError.unsupported(
                "a checkpoint of container \(id), whose disk \(disk.parts.first?.path ?? "") can be written")
        }
    }

    /// A restored container gets what is mounted below its sources then, and not what came while it ran.
    private func refuseLaterMounts(_ container: Container, _ pod: RunningPod) throws {
        for share in container.plan.shares where share.propagates {
            let mounts = pod.shares.mounts(container.id, at: share.mountPoint)
            guard let later = mounts.first(where: \.isLater) else { continue }
            throw SandboxError.unsupported(
                "a checkpoint of container \(container.id), in which mount \(later.path) below \(share.source) has appeared since it was made"
            )
        }
    }

    /// Takes away what the guest has of containers that have ended: nobody asks it of them any more.
    private func removeStoppedFromGuest(_ pod: RunningPod) async {
        for (id, container) in containers where container.first.phase.isStopped {
            await removeFromGuest(id, pod)
            await removeDisks(of: id, pod)
            await pod.shares.remove(id)
            await pod.forgetTargets(of: id)
        }
    }

    private func checkpoint(of ids: [String], _ shape: TemplateShape, _ pod: RunningPod) async throws -> Checkpoint {
        let saved = try ids.map { id in
            let container = try find(id)
            var plan = container.plan
            plan.id = pod.agent.name(id)
            return Checkpoint.Container(
                plan: plan, id: id, bundle: container.bundle, terminal: container.first.terminal,
                sockets: pod.targets.numbers(of: id), shares: pod.shares.saved(id))
        }
        let paths = Set(saved.flatMap { $0.plan.disks.flatMap(\.parts).map(\.path) }).sorted()
        let files = try await onThread("disks") { try paths.map { try TemplateShape.File($0) } }
        return Checkpoint(
            created: Timestamp.now(), shape: shape, pod: environment.id, containers: saved, diskFiles: files,
            generation: pod.shares.generation, interfaces: await pod.network.saved(), nextStream: nextStream,
            nextTarget: pod.targets.nextNumber)
    }
}
