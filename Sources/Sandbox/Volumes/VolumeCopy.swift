import AgentAPI
import Glibc
import LinuxSystem
import Logging

/// The guest's copy of a volume that kubelet publishes: what changes on the host changes in the guest.
actor VolumeCopy {
    private let volume: SandboxPlan.PodVolume
    private let agent: AgentServiceClient
    private let limit: Duration
    private let copyLimit: Int
    private let logger: Logger
    private let updates = OneAtATime()
    private var watch: VolumeWatch?
    /// What the guest has, and what the directory of its files is called there.
    private var sent: (content: PublishedContent, name: String)?
    /// What the host called the directory that was sent last, and whether the guest took it or not.
    private var tried = ""
    /// How many directories have been sent.
    private var count = 0
    /// What was said last of why the guest does not have what the host has: it is said once.
    private var said = ""
    private var hasEnded = false
    /// An update has failed, and the next try will come.
    private var isToFollow = false
    /// Until then.
    private static let pause = Duration.seconds(5)

    init(
        _ volume: SandboxPlan.PodVolume, _ agent: AgentServiceClient, _ watch: VolumeWatch, limit: Duration,
        copyLimit: Int, logger: Logger
    ) {
        self.volume = volume
        self.agent = agent
        self.watch = watch
        self.limit = limit
        self.copyLimit = copyLimit
        self.logger = logger
    }

    /// Sends what is there; the watch tells of changes from now on.
    func begin() async throws {
        watch?.add(volume.source)
        try await refresh()
    }

    func end() {
        hasEnded = true
        watch = nil
    }

    /// Sends what has changed.
    func follow() async {
        do {
            try await refresh()
        } catch let reason as PublishedContent.Obstacle {
            say(.error, "\(reason): containers keep seeing what it had before")
        } catch let error as SystemError where error.errno == .noSuchFileOrDirectory {
            // As a pod is taken down.
            say(.debug, "it is gone from the host (\(error))")
        } catch {
            say(.error, "an update did not reach the guest, it is tried again: \(error)")
            followLater()
        }
    }

    /// The host may never change it again.
    private func followLater() {
        if isToFollow || hasEnded { return }
        isToFollow = true
        Task { [weak self] in
            try? await Task.sleep(for: Self.pause)
            await self?.followAgain()
        }
    }

    private func followAgain() async {
        isToFollow = false
        await follow()
    }

    private func say(_ level: Logger.Level, _ words: String) {
        if hasEnded || words == said { return }
        said = words
        logger.log(level: level, "\(volume.title) (\(volume.source)): \(words)")
    }

    private func refresh() async throws {
        try await updates.run { try await self.converge() }
    }

    private func converge() async throws {
        guard !hasEnded, let watch else { return }
        let (source, copyLimit, known) = (volume.source, copyLimit, sent?.content.name)
        let content = try await onThread("volume") {
            let content = try PublishedContent.read(source, limit: copyLimit)
            if content.name == known { return content }
            // Owners and modes may be set when it is published already.
            for entry in content.files where entry.mode & S_IFMT == S_IFDIR {
                watch.add("\(source)/\(content.name)/\(entry.path)")
            }
            // Again, so that nothing is missed in between.
            return try PublishedContent.read(source, limit: copyLimit)
        }
        if content == sent?.content {
            said = ""
            return
        }
        var requests = VolumeRequests(volume.name)
        requests.add([content.root])
        var name = sent?.name ?? ""
        if content.files != sent?.content.files || content.name != sent?.content.name {
            count += 1
            // In the guest, what is published never changes, and what came there in part is of no use.
            name = content.name == tried ? "\(content.name).\(count)" : content.name
            tried = content.name
            requests.add(content.files, in: name)
        }
        requests.publish(name, content.links)
        try await agent.write(requests.requests, limit: limit)
        (sent, said) = ((content, name), "")
        logger.debug("\(volume.title): sent \(name)")
    }
}
