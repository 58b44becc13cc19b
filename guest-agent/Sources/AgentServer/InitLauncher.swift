import CLinux
import ContainerInit
import ContainerPlan
import Glibc
import GuestSystem
import LinuxSystem
import OCISpec

/// Starts stages, and waits until they have set everything up.
struct InitLauncher: Sendable {
    let reaper: Reaper
    let executable: SelfExecutable
    private let processes = SharedProcesses()

    init(reaper: Reaper, executable: SelfExecutable) {
        self.reaper = reaper
        self.executable = executable
    }

    /// Starts a stage for `request` in `group`. Blocks until it waits to execute; throws what failed in it.
    func launch(
        _ request: InitRequest, streams: ProcessStreams, group: Cgroup, container: GuestProcess? = nil
    ) throws(AgentFailure) -> ContainerProcess {
        let (process, channel) = try start(request, streams: streams, group: group, container: container)
        streams.born()
        do {
            let terminal = try readiness(channel, process)
            try streams.start(terminal: terminal)
        } catch {
            streams.end()
            throw AgentFailure(error)
        }
        return ContainerProcess(process, streams, channel)
    }

    /// The stage's end of the channel is its alone when this returns: it shows when the stage is gone.
    private func start(
        _ request: InitRequest, streams: ProcessStreams, group: Cgroup, container: GuestProcess?
    ) throws(AgentFailure) -> (GuestProcess, InitChannel) {
        try during("start the stage") {
            let memory = SharedDescriptor(try Self.memory(try JSON.encode(request)))
            let directory = try group.open()
            let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_SEQPACKET)
            let streamDescriptors = streams.birthDescriptors
            var birth = Reaper.Birth(
                executable: executable.descriptor.raw, arguments: ["martlet-agent", InitStage.argument],
                descriptors: streamDescriptors.map(\.raw) + [theirs.raw, memory.raw])
            birth.cgroup = directory.raw
            switch request {
            case .create(let plan):
                give(streamDescriptors, to: plan.namespaces.userOutside(plan.process.uid))
                birth.namespaces = plan.namespaces.atBirth
                birth.maps = (plan.namespaces.userMap, plan.namespaces.groupMap)
                if plan.namespaces.sharesProcesses {
                    birth.pidNamespaceOf = try processes.firstProcess(reaper, executable).descriptor.raw
                }
            case .join(let plan, let namespaces):
                if let container {
                    give(streamDescriptors, to: namespaces.userOutside(plan.uid))
                    birth.descriptors.append(container.descriptor.raw)
                    if namespaces.entered & UInt64(NamespaceFlag.pid) != 0 {
                        birth.pidNamespaceOf = container.descriptor.raw
                    }
                }
            }
            let process = try reaper.start(birth)
            withExtendedLifetime((memory, streamDescriptors, theirs)) {}
            return (process, InitChannel(ours))
        }
    }

    /// In a user namespace of the container's own the stage can't: the agent is nobody there.
    private func give(_ streams: [SharedDescriptor], to user: UInt32?) {
        guard let user, user != 0 else { return }
        // /dev/null stays the guest's.
        for stream in streams {
            if let mode = try? stream.information().st_mode, mode & S_IFMT == S_IFIFO {
                _ = fchown(stream.raw, user, gid_t.max)
            }
        }
    }

    private func readiness(_ channel: InitChannel, _ process: GuestProcess) throws(AgentFailure) -> SharedDescriptor? {
        let answer = try during("wait for the stage") { try channel.receive() }
        switch answer?.message {
        case .ready: return answer?.descriptors.first
        case .failed(let kind, let message): throw AgentFailure(kind, message)
        case .go: throw AgentFailure(.internal, "the stage answered out of turn")
        case nil:
            let end = process.ended.wait(timeout: .seconds(1)).map { "\($0.status)" } ?? "still running"
            throw AgentFailure(.internal, "the stage ended before the set-up was complete: \(end)")
        }
    }

    /// A memory file with `bytes`.
    private static func memory(_ bytes: [UInt8]) throws(SystemError) -> OwnedDescriptor {
        let file = try OwnedDescriptor.memory("stage", size: 0)
        var written = 0
        while written < bytes.count {
            let count = try retrying("write", "the stage's request") {
                bytes.withUnsafeBytes { write(file.raw, $0.baseAddress.map { $0 + written }, $0.count - written) }
            }
            written += count
        }
        return file
    }
}
