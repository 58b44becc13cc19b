import AgentAPI
import Glibc
import LinuxSystem
import Logging
import TTRPC

/// The volumes of a pod that are in its guest's memory. Each is created once, with its content on the host, and exists as long as
/// the pod.
actor PodVolumes {
    private let agent: AgentServiceClient
    private let limit: Duration
    private let copyLimit: Int
    /// How often the machine has been restored.
    private let generation: Int
    private let logger: Logger
    /// The volumes that exist or are being created, by name.
    private var made: [String: Task<Void, any Error>] = [:]
    private var copies: [VolumeCopy] = []
    /// One watch for all copies, because the kernel limits the number of inotify instances of a user.
    private var watch: VolumeWatch?

    /// - Parameters:
    ///   - limit: the timeout of one request.
    ///   - copyLimit: the largest volume that is copied, bytes.
    ///   - generation: how often the machine has been restored.
    init(_ agent: AgentServiceClient, limit: Duration, copyLimit: Int, generation: Int = 0, logger: Logger) {
        self.agent = agent
        self.limit = limit
        self.copyLimit = copyLimit
        self.generation = generation
        self.logger = logger
    }

    /// Creates the volume, and the part of it that a container mounts, in the guest.
    func provide(_ volume: SandboxPlan.PodVolume) async throws {
        let task = made[volume.name] ?? Task { try await make(volume) }
        made[volume.name] = task
        do {
            try await task.value
        } catch {
            if made[volume.name] == task { made[volume.name] = nil }
            throw Self.failure(volume, error)
        }
        if volume.part.isEmpty { return }
        do { try await provide(part: volume.part, of: volume) } catch { throw Self.failure(volume, error) }
    }

    /// Takes over a volume that a restored guest has: its content stays, or what has changed on the host since is sent.
    func resume(_ volume: SandboxPlan.PodVolume) async throws {
        guard made[volume.name] == nil else { return }
        let task = Task { if volume.kind == .copy { try await follow(volume) } }
        made[volume.name] = task
        do { try await task.value } catch { throw Self.failure(volume, error) }
    }

    private static func failure(_ volume: SandboxPlan.PodVolume, _ error: any Error) -> any Error {
        if let error = error as? TTRPCError {
            // The code tells callers whether the connection is lost.
            return TTRPCError(error.code, "\(volume.title): \(error.message)")
        }
        return SandboxError.failed("\(volume.title): \(error)")
    }

    private func make(_ volume: SandboxPlan.PodVolume) async throws {
        _ = try await agent.makeVolume(
            .with {
                $0.name = volume.name
                $0.sizeBytes = volume.size ?? 0
                ($0.mode, $0.uid, $0.gid) = (volume.mode, volume.uid, volume.gid)
            }, timeout: limit)
        switch volume.kind {
        case .memory where volume.source.isEmpty: return
        case .memory:
            let copyLimit = copyLimit
            let entries = try await onThread("volume") {
                let directory = try OwnedDescriptor.open(volume.source, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
                do {
                    return try VolumeTree.read(directory.raw, volume.source, limit: copyLimit)
                } catch let error as VolumeTree.TooLarge {
                    throw SandboxError.unsupported(
                        "more than \(error.limit) bytes (volumes.copy_limit_mib) in it on the host")
                }
            }
            var requests = VolumeRequests(volume.name)
            requests.add(entries)
            try await agent.write(requests.requests, limit: limit)
        case .copy: try await follow(volume)
        }
    }

    /// Sends what the host has in a volume, and follows changes from now on.
    private func follow(_ volume: SandboxPlan.PodVolume) async throws {
        let watch = watch ?? VolumeWatch(logger: logger) { [weak self] in Task { await self?.follow() } }
        self.watch = watch
        let copy = VolumeCopy(
            volume, agent, watch, limit: limit, copyLimit: copyLimit, generation: generation, logger: logger)
        // Before the first read, so that no change is missed.
        copies.append(copy)
        do { try await copy.begin() } catch {
            copies.removeAll { $0 === copy }
            throw error
        }
    }

    private func follow() async {
        for copy in copies { await copy.follow() }
    }

    /// Creates the directories down to the part that a container mounts. kubelet has created them on the host only.
    private func provide(part: String, of volume: SandboxPlan.PodVolume) async throws {
        let directories = try await onThread("volume") { try VolumeTree.directories(to: part, in: volume.source) }
        var requests = VolumeRequests(volume.name)
        requests.add(directories)
        try await agent.write(requests.requests, limit: limit)
    }

    /// Stops following changes on the host.
    func end() async {
        for copy in copies { await copy.end() }
        (copies, watch) = ([], nil)
    }
}

extension AgentServiceClient {
    /// Sends the requests in order.
    func write(_ requests: [AgentWriteVolumeRequest], limit: Duration) async throws {
        for request in requests { _ = try await writeVolume(request, timeout: limit) }
    }
}
