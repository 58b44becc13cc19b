import CLinux
import ContainerPlan
import Glibc
import GuestSystem
import LinuxSystem
import OCISpec
import Stage

/// Starts stages, and waits until they have set everything up.
struct StageLauncher: Sendable {
    let reaper: Reaper
    let executable: SelfExecutable

    /// Starts a stage for `request` in `group`. Blocks until it waits to execute; throws what failed in it.
    func launch(
        _ request: StageRequest, streams: ProcessStreams, group: ControlGroup, container: GuestProcess? = nil
    ) throws(AgentFailure) -> ContainerProcess {
        let (ours, theirs) = try during("make the stage's channel") { try SharedDescriptor.socketPair(SOCK_SEQPACKET) }
        let process = try start(request, streams: streams, group: group, container: container, channel: theirs)
        streams.born()
        let channel = StageChannel(ours)
        do {
            let terminal = try readiness(channel, process)
            try streams.start(terminal: terminal)
        } catch {
            streams.end()
            throw AgentFailure(error)
        }
        return ContainerProcess(process, streams, channel)
    }

    private func start(
        _ request: StageRequest, streams: ProcessStreams, group: ControlGroup, container: GuestProcess?,
        channel: SharedDescriptor
    ) throws(AgentFailure) -> GuestProcess {
        try during("start the stage") {
            let memory = SharedDescriptor(try Self.memory(try JSON.encode(request)))
            let directory = try group.open()
            let streamDescriptors = streams.birthDescriptors
            var birth = Reaper.Birth(
                executable: executable.descriptor.raw, arguments: ["martlet-agent", Stage.argument],
                descriptors: streamDescriptors.map(\.raw) + [channel.raw, memory.raw])
            birth.cgroup = directory.raw
            switch request {
            case .create(let plan):
                // The cgroup namespace is made later: its root is the cgroup that the process is in by then.
                birth.namespaces = plan.namespaces & ~UInt64(NamespaceFlag.cgroup)
            case .join(_, let namespaces):
                if let container {
                    birth.descriptors.append(container.descriptor.raw)
                    if namespaces & UInt64(NamespaceFlag.pid) != 0 { birth.pidNamespaceOf = container.descriptor.raw }
                }
            }
            let process = try reaper.start(birth)
            withExtendedLifetime((memory, streamDescriptors, channel)) {}
            return process
        }
    }

    private func readiness(_ channel: StageChannel, _ process: GuestProcess) throws(AgentFailure) -> SharedDescriptor? {
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
