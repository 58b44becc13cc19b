import CLinux
import ContainerInit
import ContainerPlan
import Glibc
import GuestSystem
import LinuxSystem
import OCISpec

/// Starts container inits, and waits until they have set everything up.
struct InitLauncher: Sendable {
    let reaper: Reaper
    let executable: SelfExecutable
    private let processes = SharedProcesses()

    init(reaper: Reaper, executable: SelfExecutable) {
        self.reaper = reaper
        self.executable = executable
    }

    /// Starts a container init in `group`. Blocks until it is ready to execute.
    ///
    /// - Parameters:
    ///   - mayMove: whether a further process that can't be in `group` starts in the cgroup of the container's first one.
    ///   - container: the container's first process, where a further one joins.
    ///   - others: the first processes of the sandbox's containers, for a new one that joins their namespaces.
    /// - Throws: what failed in it.
    func launch(
        _ request: InitRequest, streams: ProcessStreams, group: Cgroup, mayMove: Bool = true,
        container: GuestProcess? = nil, others: [String: GuestProcess] = [:]
    ) throws(AgentFailure) -> ContainerProcess {
        var (process, channel) = try start(
            request, streams: streams, group: group, mayMove: mayMove, container: container, others: others)
        streams.closeChildEnds()
        do {
            if request.goesOn { process = try successor(of: process, channel) }
            let terminal = try readiness(channel, process)
            try streams.start(terminal: terminal)
        } catch {
            streams.end()
            throw AgentFailure(error)
        }
        return ContainerProcess(process, streams, channel)
    }

    /// When this returns, only the init has its end of the channel: the channel closes when the init is gone.
    private func start(
        _ request: InitRequest, streams: ProcessStreams, group: Cgroup, mayMove: Bool, container: GuestProcess?,
        others: [String: GuestProcess]
    ) throws(AgentFailure) -> (GuestProcess, InitChannel) {
        let joined = try joined(request, others)
        return try during("start the container init") {
            let memory = SharedDescriptor(try Self.memory(try JSON.encode(request)))
            let directory = try group.open()
            let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_SEQPACKET)
            let streamDescriptors = streams.childDescriptors
            var launch = Reaper.Launch(
                executable: executable.descriptor.raw, arguments: ["martlet-agent", ContainerInitProcess.argument],
                descriptors: streamDescriptors.map(\.raw) + [theirs.raw, memory.raw])
            launch.cgroup = directory.raw
            switch request {
            case .create(let plan):
                chown(streamDescriptors, to: plan.namespaces.guestUser(of: plan.process.uid))
                launch.namespaces = plan.namespaces.cloneFlags
                launch.maps = (plan.namespaces.userMap, plan.namespaces.groupMap)
                launch.descriptors += joined.map(\.process.descriptor.raw)
                if let other = joined.first(where: { $0.id == plan.namespaces.processesOf }) {
                    launch.pidNamespaceOf = other.process.descriptor.raw
                } else if plan.namespaces.sharesProcesses {
                    launch.pidNamespaceOf = try processes.firstProcess(reaper, executable).descriptor.raw
                }
            case .join(let plan, let namespaces):
                if let container {
                    chown(streamDescriptors, to: namespaces.guestUser(of: plan.uid))
                    launch.descriptors.append(container.descriptor.raw)
                }
            case .copy: if let container { launch.descriptors.append(container.descriptor.raw) }
            case .machine: break
            }
            launch.goesOn = request.goesOn
            let process = try start(launch, near: mayMove ? container : nil, in: group)
            withExtendedLifetime((memory, streamDescriptors, theirs)) {}
            return (process, InitChannel(ours))
        }
    }

    /// The containers whose namespaces a new one joins.
    private func joined(
        _ request: InitRequest, _ others: [String: GuestProcess]
    ) throws(AgentFailure) -> [(id: String, process: GuestProcess)] {
        guard case .create(let plan) = request else { return [] }
        var found: [(id: String, process: GuestProcess)] = []
        for joined in plan.namespaces.joined {
            guard let other = others[joined.container], other.ended.current == nil else {
                throw AgentFailure(
                    .failedPrecondition, "linux.namespaces: container \(joined.container), which it joins, does not run"
                )
            }
            found.append((joined.container, other))
        }
        return found
    }

    /// Starts it in the container's cgroup, or in that of the container's first process where the container has made cgroups of
    /// its own and given them controllers: the upper one may have no processes then (cgroup-v2.rst, No Internal Process
    /// Constraint).
    private func start(
        _ launch: Reaper.Launch, near container: GuestProcess?, in group: Cgroup
    ) throws(SystemError) -> GuestProcess {
        do {
            return try reaper.start(launch)
        } catch  where error.errno == .resourceBusy {
            guard let container, let inner = group.descendant(of: container.pid) else { throw error }
            let directory = try inner.open()
            var launch = launch
            launch.cgroup = directory.raw
            return try reaper.start(launch)
        }
    }

    /// In a user namespace of the container's own the init can't: the agent's user is not mapped there.
    private func chown(_ streams: [SharedDescriptor], to user: UInt32?) {
        guard let user, user != 0 else { return }
        // /dev/null stays the guest's.
        for stream in streams {
            if let mode = try? stream.information().st_mode, mode & S_IFMT == S_IFIFO {
                _ = fchown(stream.raw, user, gid_t.max)
            }
        }
    }

    /// The process as which a container init goes on once it is inside the container.
    private func successor(of process: GuestProcess, _ channel: InitChannel) throws(AgentFailure) -> GuestProcess {
        do throws(AgentFailure) {
            let answer = try during("wait for the container init") { try channel.receive() }
            if case .entered(let pid)? = answer?.message, let descriptor = answer?.descriptors.first {
                return try during("adopt the container init") { try reaper.adopt(pid, descriptor) }
            }
            throw failure(answer?.message, process)
        } catch {
            reaper.awaitNoLonger()
            throw error
        }
    }

    private func readiness(_ channel: InitChannel, _ process: GuestProcess) throws(AgentFailure) -> SharedDescriptor? {
        let answer = try during("wait for the container init") { try channel.receive() }
        if case .ready? = answer?.message { return answer?.descriptors.first }
        throw failure(answer?.message, process)
    }

    /// What a message is, or the lack of one, that is not the one that is due.
    private func failure(_ message: InitMessage?, _ process: GuestProcess) -> AgentFailure {
        switch message {
        case .failed(let kind, let message): return AgentFailure(kind, message)
        case .ready, .entered, .go, .done:
            return AgentFailure(.internal, "the container init sent a message out of turn")
        case nil:
            let end = process.ended.wait(timeout: .seconds(1)).map { "\($0.status)" } ?? "still running"
            return AgentFailure(.internal, "the container init ended before the set-up was complete: \(end)")
        }
    }

    /// A memory file with `bytes`.
    private static func memory(_ bytes: [UInt8]) throws(SystemError) -> OwnedDescriptor {
        let file = try OwnedDescriptor.memory("container-init", size: 0)
        var written = 0
        while written < bytes.count {
            let count = try retrying("write", "the container init's request") {
                bytes.withUnsafeBytes { write(file.raw, $0.baseAddress.map { $0 + written }, $0.count - written) }
            }
            written += count
        }
        return file
    }
}
