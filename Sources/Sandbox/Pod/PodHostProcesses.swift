import Glibc
import LinuxSystem

/// The processes on the host that stand for the processes of containers.
extension Pod {
    /// The process that engines take for a container's first one: the one that was handed in, or a new one; in the pod's network
    /// namespace.
    func hostProcess(
        _ plan: SandboxPlan.Container, _ request: ContainerRequest, in pod: RunningPod
    ) async throws -> HostProcess {
        let name = environment.id
        return try await onThread("container process") {
            let process = try request.streams.process ?? HostProcess.start(container: plan.id, pod: name)
            let files: [(path: String, tree: SharedDescriptor)]
            // What a snapshotter describes is mounted for the file device alone.
            do { files = try request.rootfs.isEmpty ? plan.hostFiles() : [] } catch {
                process.end(.exited(255))
                throw error
            }
            try process.enter(pod.network.namespace, user: pod.user.id, files: files)
            return process
        }
    }

    /// Passes on to a container's process what happens to the one on the host.
    func watch(_ process: HostProcess, _ id: String, exec: String) throws {
        let events = try process.events()
        Task { for await event in events { await follow(event, id, exec) } }
    }

    private func follow(_ event: HostProcess.Event, _ id: String, _ exec: String) async {
        do {
            switch event {
            case .signal(let number): try await signal(id, exec: exec, UInt32(number), all: false)
            case .resized(let width, let height): try await resize(id, exec: exec, width: width, height: height)
            case .ended:
                guard let process = containers[id]?[exec], !process.phase.isStopped else { return }
                logger.info("\(Self.name(id, exec)): its process on the host was killed")
                try await signal(id, exec: exec, UInt32(SIGKILL), all: exec.isEmpty)
            }
        } catch { logger.debug("\(Self.name(id, exec)): \(event): \(error)") }
    }

    /// The processes on the host that stand for those of a container: of its first one, and of execs that commands have made.
    package func hostPIDs(_ id: String) throws -> [UInt32] {
        _ = try running()
        return try find(id).processes.filter { !$0.phase.isStopped }.compactMap(\.host).map {
            UInt32(bitPattern: $0.pid)
        }
    }
}

extension SandboxPlan.Container {
    /// The container's file trees on the host, detached, with their paths in the container.
    fileprivate func hostFiles() throws -> [(path: String, tree: SharedDescriptor)] {
        let places = [("/", spec.root?.path ?? "")] + spec.mounts.map { ($0.destination, $0.source) }
        return try places.compactMap { path, mountPoint in
            guard let share = shares.first(where: { $0.mountPoint == mountPoint }) else { return nil }
            let mounts = try DetachedMount.clone(.path(share.source), all: false, readOnly: share.readOnly)
            return mounts.first.map { (path, $0.tree) }
        }
    }
}
