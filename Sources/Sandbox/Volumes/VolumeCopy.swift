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
    private var watch: VolumeWatch?
    /// What the guest has, and what the directory of its files is called there.
    private var sent: (content: PublishedContent, name: String)?
    /// What the host called the directory that was sent last, and whether the guest took it or not.
    private var tried = ""
    /// How many directories have been sent.
    private var count = 0
    private var update: Task<Void, any Error>?
    /// What was said last of why the guest does not have what the host has: it is said once.
    private var said = ""
    private var hasEnded = false

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
            say(.error, "an update did not reach the guest: \(error)")
        }
    }

    private func say(_ level: Logger.Level, _ words: String) {
        if hasEnded || words == said { return }
        said = words
        logger.log(level: level, "\(volume.title) (\(volume.source)): \(words)")
    }

    /// One at a time.
    private func refresh() async throws {
        let before = update
        let next = Task {
            _ = await before?.result
            try await converge()
        }
        update = next
        try await next.value
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
