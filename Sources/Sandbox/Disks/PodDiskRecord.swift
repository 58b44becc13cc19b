import Hypervisor
import LinuxSystem

/// A pod's disks, and what is written down about the processes that serve them.
extension Pod {
    /// Plugs the disks of a container that is being created.
    ///
    /// - Throws: as `PodDisks.add`.
    func addDisks(of plan: SandboxPlan.Container, _ pod: RunningPod) async throws {
        if plan.disks.isEmpty { return }
        try await pod.disks.add(plan.disks, container: plan.id)
        try await recordProcesses(pod)
    }

    /// Takes the disks away that only this container used.
    func removeDisks(of id: String, _ pod: RunningPod) async {
        if await pod.disks.remove(id) { try? await recordProcesses(pod) }
    }

    /// Writes down the machine's processes as they are now, for whoever looks at the pod or clears up after a crash.
    private func recordProcesses(_ pod: RunningPod) async throws {
        let directory = environment.directory
        try await stateWrites.run {
            try await onThread("state") {
                guard var state = directory.read() else { return }
                let machines = pod.machine.processes.compactMap {
                    StateDirectory.ProcessRecord(name: $0.name, pid: $0.pid)
                }
                let processes = state.processes.filter { $0.name == "server" } + machines
                guard processes != state.processes else { return }
                state.processes = processes
                try directory.write(state)
            }
        }
    }
}
