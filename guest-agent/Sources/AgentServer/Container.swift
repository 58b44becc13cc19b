import AgentAPI
import CAgent
import ContainerInit
import ContainerPlan
import Glibc
import GuestSystem
import LinuxSystem
import OCISpec

/// A container, from its creation to its removal.
actor Container {
    private enum State {
        /// Its first process waits to execute its program.
        case created(ContainerProcess)
        case starting(ContainerProcess)
        case running(ContainerProcess)
        case stopped(ContainerProcess)
        case removing(ContainerProcess)

        var process: ContainerProcess {
            switch self {
            case .created(let process), .starting(let process), .running(let process), .stopped(let process),
                .removing(let process):
                process
            }
        }
    }

    /// A further process.
    private enum Exec {
        case starting
        case running(ContainerProcess)
    }

    nonisolated let spec: Spec
    nonisolated let first: GuestProcess
    let plan: ContainerPlan
    let launcher: InitLauncher
    let table: StreamTable
    let group: Cgroup
    private(set) var storages: Storages
    private var sockets: ForwardedSockets
    private var state: State
    private var execs: [String: Exec] = [:]
    /// How often files are being copied out of it or into it.
    private var copies = 0
    /// The last further processes that were forgotten.
    private var forgotten: [String] = []
    /// The limits in force; a running container's can be changed.
    private var resources: Linux.Resources
    private let freezeLimit: Duration
    private var isPaused = false

    init(_ parts: ContainerCreation.Parts, launcher: InitLauncher, table: StreamTable) {
        spec = parts.spec
        first = parts.process.process
        plan = parts.plan
        group = parts.group
        storages = parts.storages
        sockets = parts.sockets
        resources = parts.spec.linux?.resources ?? .init()
        freezeLimit = parts.freezeLimit
        state = .created(parts.process)
        self.launcher = launcher
        self.table = table
    }

    /// Of its first process.
    var pid: UInt32 { state.process.pid }

    /// Sets the host name in its first process's UTS namespace; empty: the name stays as it is.
    func setHostname(_ name: String) async throws(AgentFailure) {
        if name.isEmpty { return }
        let pid = pid
        // The thread does not leave the namespace: it ends.
        try await blocking("hostname") { () throws(AgentFailure) in try Self.setHostname(name, of: pid) }
    }

    private static func setHostname(_ name: String, of pid: UInt32) throws(AgentFailure) {
        try during("enter the UTS namespace of process \(pid)") {
            let namespace = try OwnedDescriptor.open("/proc/\(pid)/ns/uts", O_RDONLY)
            try check("setns", "", martlet_agent_setns(namespace.raw, NamespaceFlag.uts))
        }
        try Sandbox.setHostname(name)
    }

    /// Executes its program.
    func start() async throws(AgentFailure) -> UInt32 {
        guard case .created(let process) = state else {
            throw AgentFailure(.failedPrecondition, "it is \(stateName), not created")
        }
        if process.hasEnded { throw AgentFailure(.failedPrecondition, "its first process ended before it was started") }
        try refuseIfPaused()
        state = .starting(process)
        do throws(AgentFailure) {
            try await blocking("start") { () throws(AgentFailure) in try process.execute() }
        } catch {
            state = .stopped(process)
            throw error
        }
        if case .starting = state { state = .running(process) }
        return process.pid
    }

    /// Starts a further process. Before the first one executes its program too: the container's namespaces and mounts are there.
    ///
    /// - Parameter cgroup: below the container's; empty: where it can be.
    func exec(
        _ id: String, _ process: Process, _ numbers: AgentStreams, cgroup: String = ""
    ) async throws(AgentFailure) -> UInt32 {
        let first = try activeProcess()
        switch execs[id] {
        case .starting: throw AgentFailure(.alreadyExists, "a process of that id exists")
        case .running(let other) where !other.hasEnded:
            throw AgentFailure(.alreadyExists, "a process of that id exists")
        case .running(let other):
            // Its output may not be with the host yet.
            other.streams.abandonDetached()
            execs[id] = .starting
        case nil: execs[id] = .starting
        }
        let (launcher, table, group, container) = (launcher, table, group, plan)
        do throws(AgentFailure) {
            let started = try await blocking("exec") { () throws(AgentFailure) in
                var plan = try ProcessPlan(process)
                plan.inherit(from: container.process)
                plan.keepsLineFeeds = numbers.keepsLineFeeds
                let streams = try during("make its streams") {
                    try ProcessStreams(numbers, terminal: plan.terminal, table: table)
                }
                let request = InitRequest.join(plan, container.namespaces)
                let place = try group.below(cgroup)
                let started = try launcher.launch(
                    request, streams: streams, group: place, mayMove: cgroup.isEmpty, container: first.process)
                try started.execute()
                return started
            }
            execs[id] = .running(started)
            return started.pid
        } catch {
            execs[id] = nil
            table.discard(numbers)
            throw error
        }
    }

    /// Counts a copy of files.
    ///
    /// - Returns: the process whose namespaces it is done in.
    func beginCopy() throws(AgentFailure) -> ContainerProcess {
        let first = try activeProcess()
        copies += 1
        return first
    }

    func endCopy() { copies -= 1 }

    /// The first process, which others can join.
    private func activeProcess() throws(AgentFailure) -> ContainerProcess {
        switch state {
        case .created(let process), .running(let process):
            guard !process.hasEnded else { fallthrough }
            try refuseIfPaused()
            return process
        default:
            throw AgentFailure(.failedPrecondition, "the container is \(stateName), neither created nor running")
        }
    }

    /// The process of that id; the first one's is empty.
    func process(_ execID: String) throws(AgentFailure) -> ContainerProcess {
        if execID.isEmpty { return state.process }
        guard case .running(let process)? = execs[execID] else {
            throw AgentFailure(.notFound, "no such process")
        }
        return process
    }

    /// Its processes whose streams there are, by their exec ids, the first one's being empty.
    ///
    /// - Throws: where a process is being started, or files are being copied.
    func streams() throws(AgentFailure) -> [(execID: String, streams: ProcessStreams)] {
        if copies > 0 { throw AgentFailure(.failedPrecondition, "files are being copied") }
        var all = [(execID: "", streams: state.process.streams)]
        for (id, exec) in execs {
            guard case .running(let process) = exec else {
                throw AgentFailure(.failedPrecondition, "process \(id): it is being started")
            }
            all.append((id, process.streams))
        }
        return all
    }

    /// Forgets a further process whose end was reported, when all its output is with the host.
    func forget(_ execID: String, _ process: ContainerProcess) {
        guard case .running(let known)? = execs[execID], known === process else { return }
        guard process.streams.isDrained else {
            Task {
                await process.streams.drained()
                forget(execID, process)
            }
            return
        }
        execs[execID] = nil
        forgotten = forgotten.suffix(255) + [execID]
    }

    /// The streams of the process of that id, to be attached; nil: it has ended, and all its output was taken. The host may not know that
    /// yet.
    func streams(of execID: String) throws(AgentFailure) -> ProcessStreams? {
        if execs[execID] == nil, forgotten.contains(execID) { return nil }
        return try process(execID).streams
    }

    func signalAll(_ number: Int32) throws(AgentFailure) {
        try during("signal every process") {
            if number == SIGKILL { return try group.kill() }
            for pid in try group.processes() {
                if kill(pid_t(bitPattern: pid), number) != 0, Glibc.errno != ESRCH {
                    throw SystemError.last("kill", "process \(pid)")
                }
            }
        }
    }

    /// Kills what its first process has left behind, which outlives it where the pid namespace is shared.
    func killRemaining() {
        // Fails when the container is being removed, which ends them too.
        try? group.kill()
    }

    func processes() throws(AgentFailure) -> [UInt32] {
        try during("list the processes") { try group.processes() }
    }

    /// How many of its processes the kernel has killed because memory ran out.
    func oomKills() -> UInt64 { group.oomKills }

    /// Stops all of its processes where they are.
    func pause() async throws(AgentFailure) {
        switch state {
        case .created: break
        case .running(let process) where !process.hasEnded: break
        default: throw AgentFailure(.failedPrecondition, "the container is \(stateName), neither created nor running")
        }
        try refuseIfPaused()
        isPaused = true
        let (group, limit) = (group, freezeLimit)
        do throws(AgentFailure) {
            try await blocking("pause") { () throws(AgentFailure) in try group.freeze(within: limit) }
        } catch {
            isPaused = false
            throw error
        }
    }

    /// Lets its processes go on.
    func resume() async throws(AgentFailure) {
        guard isPaused else { throw AgentFailure(.failedPrecondition, "the container is not paused") }
        let (group, limit) = (group, freezeLimit)
        try await blocking("resume") { () throws(AgentFailure) in try group.thaw(within: limit) }
        isPaused = false
    }

    /// A process that starts in a frozen cgroup would never answer.
    private func refuseIfPaused() throws(AgentFailure) {
        if isPaused { throw AgentFailure(.failedPrecondition, "the container is paused") }
    }

    /// Changes its limits; what `changed` leaves out stays.
    func update(_ changed: Linux.Resources) throws(AgentFailure) {
        // Engines repeat the container's own rules.
        guard changed.devices.isEmpty || changed.devices == resources.devices else {
            throw AgentFailure(.unimplemented, "linux.resources.devices: the rules of a container can't be changed")
        }
        try group.apply(try ResourcePlan(changed, current: resources))
        resources.update(with: changed)
    }

    func statistics() -> AgentContainerStatsResponse { group.statistics() }

    /// See `Cgroup.waitOOM`.
    func waitOOM(seen: UInt64) async throws(AgentFailure) -> UInt64 {
        let group = group
        return try await blocking("oom") { () throws(AgentFailure) in try group.waitOOM(seen: seen) }
    }

    /// Ends what still runs and takes everything of it away. After a failure it may be called again.
    func remove() async throws(AgentFailure) {
        let process = state.process
        state = .removing(process)
        let (group, storages) = (group, storages)
        self.storages = try await blocking("remove") { () throws(AgentFailure) in
            var storages = storages
            try during("remove the cgroup") { try group.remove() }
            try during("unmount") { try storages.unmountAll() }
            return storages
        }
        sockets.removeAll()
        process.streams.abandon()
        for case .running(let exec) in execs.values { exec.streams.abandon() }
    }

    private var stateName: String {
        switch state {
        case .created(let process): process.hasEnded ? "stopped" : "created"
        case .starting: "starting"
        case .running(let process): process.hasEnded ? "stopped" : "running"
        case .stopped: "stopped"
        case .removing: "being removed"
        }
    }
}
