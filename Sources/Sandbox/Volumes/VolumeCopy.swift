import AgentAPI
import Glibc
import LinuxSystem
import Logging

/// The guest's copy of a volume that kubelet publishes. It follows changes on the host.
actor VolumeCopy {
    private let volume: SandboxPlan.PodVolume
    private let agent: AgentServiceClient
    private let limit: Duration
    private let copyLimit: Int
    /// How often the machine has been restored: a restored guest has directories from before.
    private let generation: Int
    private let logger: Logger
    private let updates = OneAtATime()
    private var watch: VolumeWatch?
    /// The content that the guest has, and the name of its directory there.
    private var sent: (content: PublishedContent, name: String)?
    /// The host's name of the directory that was sent last, whether or not the guest accepted it.
    private var lastAttempted = ""
    /// The number of directories that were sent.
    private var count = 0
    /// The last message about a failed update. A message is not logged twice in a row.
    private var lastReport = ""
    private var hasEnded = false
    /// An update has failed and will be retried.
    private var isRetryScheduled = false
    /// The time until a failed update is retried.
    private static let retryDelay = Duration.seconds(5)

    init(
        _ volume: SandboxPlan.PodVolume, _ agent: AgentServiceClient, _ watch: VolumeWatch, limit: Duration,
        copyLimit: Int, generation: Int = 0, logger: Logger
    ) {
        self.volume = volume
        self.agent = agent
        self.watch = watch
        self.limit = limit
        self.copyLimit = copyLimit
        self.generation = generation
        self.logger = logger
    }

    /// Sends the content, and follows changes from now on.
    func begin() async throws {
        watch?.add(volume.source)
        try await refresh()
    }

    func end() {
        hasEnded = true
        watch = nil
    }

    /// Sends changes to the guest.
    func follow() async {
        do {
            try await refresh()
        } catch let reason as PublishedContent.CopyError {
            report(.error, "\(reason): containers keep the content that it had before")
        } catch let error as SystemError where error.errno == .noSuchFileOrDirectory {
            // This happens when a pod is removed.
            report(.debug, "the volume is gone from the host (\(error))")
        } catch {
            report(.error, "the update did not reach the guest and is retried: \(error)")
            scheduleRetry()
        }
    }

    /// Retries a failed update, since the host may never change the volume again.
    private func scheduleRetry() {
        if isRetryScheduled || hasEnded { return }
        isRetryScheduled = true
        Task { [weak self] in
            try? await Task.sleep(for: Self.retryDelay)
            await self?.retry()
        }
    }

    private func retry() async {
        isRetryScheduled = false
        await follow()
    }

    private func report(_ level: Logger.Level, _ message: String) {
        if hasEnded || message == lastReport { return }
        lastReport = message
        logger.log(level: level, "\(volume.title) (\(volume.source)): \(message)")
    }

    private func refresh() async throws {
        try await updates.run { try await self.synchronize() }
    }

    private func synchronize() async throws {
        guard !hasEnded, let watch else { return }
        let (source, copyLimit, known) = (volume.source, copyLimit, sent?.content.name)
        let content = try await onThread("volume") {
            let content = try PublishedContent.read(source, limit: copyLimit)
            if content.name == known { return content }
            // kubelet may set owners and modes after it has published the content.
            for entry in content.files where entry.mode & S_IFMT == S_IFDIR {
                watch.add("\(source)/\(content.name)/\(entry.path)")
            }
            // Read again, so that a change before the watch was added is not missed.
            return try PublishedContent.read(source, limit: copyLimit)
        }
        if content == sent?.content {
            lastReport = ""
            return
        }
        var requests = VolumeRequests(volume.name)
        requests.add([content.root])
        var name = sent?.name ?? ""
        if content.files != sent?.content.files || content.name != sent?.content.name {
            count += 1
            // A published directory of the guest never changes, and one that was sent in part can't be used.
            name = content.name == lastAttempted ? "\(content.name).\(count)" : content.name
            if generation > 0 { name = "\(content.name).\(generation).\(count)" }
            lastAttempted = content.name
            requests.add(content.files, in: name)
        }
        requests.publish(name, content.links)
        try await agent.write(requests.requests, limit: limit)
        (sent, lastReport) = ((content, name), "")
        logger.debug("\(volume.title): sent \(name)")
    }
}
