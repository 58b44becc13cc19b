import AgentAPI
import Glibc
import LinuxSystem
import Logging
import TTRPC

/// The volumes of a pod that are in its guest's memory: each is made once, with what is in it on the host, and lasts as long as
/// the pod.
actor PodVolumes {
    private let agent: AgentServiceClient
    private let limit: Duration
    private let copyLimit: Int
    private let logger: Logger
    /// By their names: those that are made, or being made.
    private var made: [String: Task<Void, any Error>] = [:]
    private var copies: [VolumeCopy] = []
    /// One for all copies: a user may have few.
    private var watch: VolumeWatch?

    /// - Parameters:
    ///   - limit: for one request.
    ///   - copyLimit: bytes of a volume's content.
    init(_ agent: AgentServiceClient, limit: Duration, copyLimit: Int, logger: Logger) {
        self.agent = agent
        self.limit = limit
        self.copyLimit = copyLimit
        self.logger = logger
    }

    /// Has the guest have what a container mounts.
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

    private static func failure(_ volume: SandboxPlan.PodVolume, _ error: any Error) -> any Error {
        if let error = error as? TTRPCError {
            // The code says whether the connection is lost.
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
        case .copy:
            let watch = watch ?? VolumeWatch(logger: logger) { [weak self] in Task { await self?.follow() } }
            self.watch = watch
            let copy = VolumeCopy(volume, agent, watch, limit: limit, copyLimit: copyLimit, logger: logger)
            // Before the first look, so that nothing is missed in between.
            copies.append(copy)
            do { try await copy.begin() } catch {
                copies.removeAll { $0 === copy }
                throw error
            }
        }
    }

    private func follow() async {
        for copy in copies { await copy.follow() }
    }

    /// The directories down to what a container mounts: kubelet has made them on the host alone.
    private func provide(part: String, of volume: SandboxPlan.PodVolume) async throws {
        let directories = try await onThread("volume") { try VolumeTree.directories(to: part, in: volume.source) }
        var requests = VolumeRequests(volume.name)
        requests.add(directories)
        try await agent.write(requests.requests, limit: limit)
    }

    /// Follows the host no longer.
    func end() async {
        for copy in copies { await copy.end() }
        (copies, watch) = ([], nil)
    }
}

extension AgentServiceClient {
    /// One request after the other.
    func write(_ requests: [AgentWriteVolumeRequest], limit: Duration) async throws {
        for request in requests { _ = try await writeVolume(request, timeout: limit) }
    }
}
