import Glibc
import LinuxSystem
import OCISpec

/// The cgroup on the host of the processes there that stand for a container's. It has no limits of its own: what the container
/// may use is the guest's to keep, and the pod's cgroup on the host.
struct ContainerCgroup: Sendable, Equatable {
    /// Empty: where the pod's server is.
    var directories: [String] = []
    /// Whether it goes with the container; the pod's goes with the pod.
    var isOwn = false
}

extension Pod {
    /// Moves a container's first process on the host into the cgroup that its bundle names, which is made for it. That of the
    /// pod's first container is the pod's; a container without one has it too.
    func makeCgroup(of plan: SandboxPlan.Container, _ process: HostProcess, in pod: RunningPod) async throws
        -> ContainerCgroup
    {
        let pods = pod.cgroup?.directories ?? []
        let path = try HostCgroupPath.of(plan.spec, id: plan.id, pod.configuration)
        let isPods = plan.id == pod.plan.container?.id || path?.path == pod.plan.cgroup?.path
        guard let path, !isPods else {
            try await onThread("cgroup") { try HostCgroup.move(process.pid, to: pods) }
            return ContainerCgroup(directories: pods)
        }
        // Written down before they are made: whoever clears up after a crash knows of them.
        try await record(cgroups: HostCgroup.directories(at: path), areThere: true)
        do {
            let directories = try await onThread("cgroup") { try HostCgroup.make(path, pid: process.pid) }
            return ContainerCgroup(directories: directories, isOwn: true)
        } catch {
            try? await record(cgroups: HostCgroup.directories(at: path), areThere: false)
            throw error
        }
    }

    /// Removes a container's own cgroup, whose processes have ended or are about to.
    func removeCgroup(_ cgroup: ContainerCgroup) async {
        guard cgroup.isOwn else { return }
        _ = try? await onThread("cgroup end") { HostCgroup.remove(cgroup.directories) }
        try? await record(cgroups: cgroup.directories, areThere: false)
    }

    private func record(cgroups: [String], areThere: Bool) async throws {
        let directory = environment.directory
        try await stateWrites.run {
            try await onThread("state") {
                guard var state = directory.read() else { return }
                state.cgroups.removeAll { cgroups.contains($0) }
                if areThere { state.cgroups += cgroups }
                try directory.write(state)
            }
        }
    }
}
