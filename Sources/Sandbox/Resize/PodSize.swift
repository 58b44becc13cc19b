import Hypervisor
import LinuxSystem
import OCISpec

/// The machine of a pod follows its containers' limits: it grows before a limit is raised or a container joins, and shrinks after a
/// limit is lowered or a container has gone. It never has less than it began with.
extension Pod {
    /// What the pod's machine should have with the containers that there are.
    ///
    /// - Parameter changed: a container's limits that are to be, by its id.
    private func wantedSize(_ pod: RunningPod, _ changed: (id: String, limits: ContainerLimits)?) -> MachineSize {
        var limits = containers.mapValues { $0.first.phase.isStopped ? ContainerLimits(nil) : $0.limits }
        if let changed { limits[changed.id] = changed.limits }
        let least = MachineSize(pod.plan.sizing).union(MachineSize(pod.plan.machine))
        let needed = MachineSize(of: Array(limits.values), overheadMiB: pod.configuration.vm.overheadMiB)
        var wanted = least.union(needed)
        wanted.vcpus = min(wanted.vcpus, max(least.vcpus, pod.plan.machine.maximumVCPUs))
        return wanted
    }

    /// Makes the machine large enough for a container's limits.
    ///
    /// - Parameters:
    ///   - id: of a container that there is, or that joins.
    ///   - limits: those that it is going to have.
    /// - Throws: `SandboxError.invalid` where this host has not so much room; `SandboxError.failed` where the guest does not take it.
    func makeRoom(for limits: ContainerLimits, of id: String, _ pod: RunningPod) async throws {
        let wanted = wantedSize(pod, (id, limits))
        try checkRoom(wanted, limits, pod)
        try await sizeChanges.run { try await self.grow(to: wanted, pod) }
    }

    /// Finds out what a machine has that goes on from a checkpoint.
    func readSize(of pod: RunningPod) async throws { machineSize = try await size(resize(pod)) }

    private func size(_ resize: MachineResize) async throws -> MachineSize { resize.size(try await resize.state()) }

    /// Gives the machine what its plan says, where it has begun with less: from a template.
    func growToPlan(_ pod: RunningPod) async throws {
        try await sizeChanges.run { try await self.grow(to: MachineSize(pod.plan.sizing), pod) }
    }

    private func grow(to wanted: MachineSize, _ pod: RunningPod) async throws {
        // It never has less than it began with.
        let base = MachineSize(pod.plan.machine)
        if base.union(wanted) == base { return }
        let resize = resize(pod)
        let state = try await resize.state()
        let current = resize.size(state)
        let next = current.union(wanted)
        if next == current { return }
        logger.debug("the machine gets \(next.vcpus) vCPUs and \(next.memoryMiB) MiB")
        try await limitHost(to: next, pod)
        try await resize.grow(from: state, to: next)
        machineSize = next
    }

    /// Takes back what the containers do not need any more, beside whatever else happens.
    func takeBackRoom(_ pod: RunningPod) {
        guard machineSize != nil else { return }
        Task {
            do {
                try await sizeChanges.run {
                    try await self.withGuest(pod) { try await self.shrink(pod) }
                }
            } catch { logger.debug("the machine keeps its size: \(error)") }
        }
    }

    private func shrink(_ pod: RunningPod) async throws {
        let (current, wanted) = (size(of: pod), wantedSize(pod, nil))
        if wanted == current { return }
        logger.debug("the machine goes back to \(wanted.vcpus) vCPUs and \(wanted.memoryMiB) MiB")
        let resize = resize(pod)
        let result: Result<Void, any Error>
        do { result = .success(try await resize.shrink(to: wanted)) } catch { result = .failure(error) }
        // The guest may have kept some of it.
        machineSize = try await size(resize)
        try result.get()
    }

    /// What the machine has, or is getting.
    func size(of pod: RunningPod) -> MachineSize { machineSize ?? MachineSize(pod.plan.machine) }

    private func resize(_ pod: RunningPod) -> MachineResize {
        MachineResize(machine: pod.machine, agent: pod.agent, description: pod.plan.machine, logger: logger)
    }

    private func checkRoom(_ wanted: MachineSize, _ limits: ContainerLimits, _ pod: RunningPod) throws {
        let machine = pod.plan.machine
        let room = machine.memoryMiB + machine.hotplugMiB
        guard wanted.memoryMiB > max(room, pod.plan.sizing.memoryMiB) else { return }
        let message =
            "linux.resources.memory.limit: with \(limits.memory >> 20) MiB the pod's machine needs \(wanted.memoryMiB) "
            + "MiB; it can have \(room) MiB on this host (vm.max_memory_mib)"
        throw SandboxError.invalid(message)
    }

    /// Raises the bound of the pod's processes on the host; Kubernetes limits its pods itself.
    private func limitHost(to size: MachineSize, _ pod: RunningPod) async throws {
        guard let cgroup = pod.cgroup, let memory = pod.plan.cgroupLimits.memory else { return }
        var limits = HostCgroupLimits(memory: memory + Int64(size.memoryMiB - pod.plan.sizing.memoryMiB) << 20)
        limits.isBound = pod.plan.cgroupLimits.isBound
        try await onThread("cgroup limits") { [limits] in try limits.apply(to: cgroup.directories) }
    }
}
