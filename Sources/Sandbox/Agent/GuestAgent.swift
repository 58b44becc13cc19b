import AgentAPI
import AgentContract
import FoundationEssentials
import Glibc
import LinuxSystem
import OCISpec
import PodNetwork
import TTRPC

/// The agent in the guest, asked in the sandbox's own types. This is the only place that makes the agent's requests, but for
/// volumes. Each call has a deadline; a lost connection is a `TTRPCError` of code `unavailable` or `cancelled`.
struct GuestAgent: Sendable {
    let client: AgentServiceClient
    /// Of a list in a reply, this many elements are taken.
    fileprivate static let longestList = 4096
    /// How long the agent may take for a request that does not wait for a process.
    let timeout: Duration
    /// What a restored agent calls containers that have other ids now, by these.
    var names: [String: String] = [:]

    /// What the agent calls a container.
    func name(_ id: String) -> String { names[id] ?? id }

    /// How a process ended, as the agent reports it.
    struct ProcessExit: Sendable {
        var record: ExitRecord
        /// How many processes of the container the guest's kernel has killed so far because memory ran out.
        var oomKills: UInt64

        /// For metrics.
        var cause: String {
            // Processes that it has outlived are not why it has ended.
            if record.status == 0 { return "success" }
            return oomKills > 0 ? "out_of_memory" : record.signal != 0 ? "signal" : "error"
        }
    }

    // MARK: The sandbox

    /// For a guest's pool.
    static func entropy() throws(SystemError) -> [UInt8] {
        var entropy = [UInt8](repeating: 0, count: 64)
        try check("getentropy", "", entropy.withUnsafeMutableBytes { getentropy($0.baseAddress, $0.count) })
        return entropy
    }

    /// Gives a guest that has just booted, or has just been restored, entropy, the time and what all of its containers share.
    ///
    /// - Throws: `SandboxError` for an agent that speaks another version of the API.
    func prepare(_ plan: SandboxPlan) async throws {
        let entropy = try Self.entropy()
        // The first call: it tells whether host and agent fit.
        let request = AgentCreateSandboxRequest.with {
            $0.protocolVersion = AgentProtocol.version
            $0.martletVersion = martletVersion
            $0.sandboxID = plan.id
            $0.hostname = plan.hostname
            $0.sharedMemoryBytes = plan.container?.sharedMemory?.size ?? 0
            $0.entropy = Data(entropy)
            $0.now = wallClockNanoseconds()
        }
        let reply: AgentCreateSandboxResponse = try await traced("CreateSandbox", \.spans) { metadata in
            try await client.createSandbox(request, metadata: metadata, timeout: timeout)
        }
        try reply.checkProtocolVersion()
    }

    /// Has the guest end all processes and power off.
    ///
    /// - Parameter timeout: how long the agent may take to reply; the power-off follows.
    func destroySandbox(timeout: Duration) async throws {
        _ = try await client.destroySandbox(.init(), timeout: timeout)
    }

    /// Makes the guest's network what the plan says.
    func updateNetwork(_ plan: NetworkPlan) async throws {
        let _: AgentEmpty = try await traced("UpdateNetwork") { metadata in
            try await client.updateNetwork(AgentUpdateNetworkRequest(plan), metadata: metadata, timeout: timeout)
        }
    }

    /// Makes the agent listen for these resolvers and for no others.
    func updateResolvers(_ resolvers: [PodResolvers.Resolver]) async throws {
        _ = try await client.updateResolvers(
            .with { request in
                request.resolvers = resolvers.map { resolver in
                    .with {
                        $0.address = Data(resolver.address.bytes)
                        $0.streamTarget = resolver.streamTarget
                        $0.datagramTarget = resolver.datagramTarget
                    }
                }
            }, timeout: timeout)
    }

    // MARK: Detached streams

    /// Has the agent let go of the connections of all processes' streams; the host lets go of its ends at the same time.
    ///
    /// - Throws: `TTRPCError` of code `deadlineExceeded` that names the streams that can't be detached.
    func detachStreams() async throws {
        _ = try await client.detachStreams(
            .init(), timeout: max(timeout, .seconds(AgentLimit.detachSeconds + 5)))
    }

    /// The new numbers of a process's streams.
    struct AttachedProcess: Sendable {
        var container: String
        /// Empty: the container's first process.
        var exec: String
        /// 0: an output is dropped, an input ends.
        var streams: StreamNumbers
        /// Of its container, in place of the one that it had; empty: that stays.
        var hostname = ""
    }

    /// Gives a guest that goes on, or was restored, the time, and its processes' streams new connections.
    ///
    /// - Parameters:
    ///   - entropy: for the guest's pool; empty: it stays as it is.
    ///   - processes: all of whose streams are detached.
    func resume(entropy: [UInt8], processes: [AttachedProcess]) async throws {
        _ = try await client.resumeSandbox(
            .with { request in
                request.entropy = Data(entropy)
                request.now = wallClockNanoseconds()
                request.processes = processes.map { process in
                    .with {
                        $0.containerID = name(process.container)
                        $0.execID = process.exec
                        $0.streams = AgentStreams(process.streams)
                        $0.hostname = process.hostname
                    }
                }
            }, timeout: timeout)
    }

    // MARK: Containers

    /// - Parameters:
    ///   - shares: what the agent mounts of the file device, in this order, before the plan's other storages.
    ///   - targets: the numbers of the plan's sockets.
    func createContainer(
        _ plan: SandboxPlan.Container, shares: [ShareStorage], targets: [UInt32], streams: StreamNumbers
    ) async throws {
        let request = try AgentCreateContainerRequest.with {
            $0.containerID = name(plan.id)
            $0.specJson = try encoded(plan.spec)
            $0.streams = AgentStreams(streams)
            $0.storages = shares.map(AgentStorage.init) + plan.storages
            $0.sockets = zip(plan.sockets, targets).map(AgentSocket.init)
        }
        let _: AgentCreateContainerResponse = try await traced("CreateContainer", \.spans) { metadata in
            try await client.createContainer(request, metadata: metadata, timeout: timeout)
        }
    }

    func startContainer(_ id: String) async throws {
        let request = AgentProcessRequest.with { $0.containerID = name(id) }
        let _: AgentStartContainerResponse = try await traced("StartContainer", \.spans) { metadata in
            try await client.startContainer(request, metadata: metadata, timeout: timeout)
        }
    }

    func removeContainer(_ id: String, timeout: Duration) async throws {
        _ = try await client.removeContainer(.with { $0.containerID = name(id) }, timeout: timeout)
    }

    /// Mounts a share below one that a container has, or over it.
    func mountShare(_ share: ShareStorage, of id: String) async throws {
        _ = try await client.mountShare(
            .with {
                $0.containerID = name(id)
                $0.share = AgentStorage(share)
            }, timeout: timeout)
    }

    /// Takes away what was mounted last at a path below a container's share.
    func unmountShare(_ path: String, at mountPoint: String, of id: String) async throws {
        _ = try await client.unmountShare(
            .with {
                $0.containerID = name(id)
                $0.mountPoint = mountPoint
                $0.path = path
            }, timeout: timeout)
    }

    /// Has the guest let go of a disk that no container uses.
    ///
    /// - Throws: `TTRPCError` of code `failedPrecondition` where a file system on it stays mounted.
    func releaseDisk(_ id: String) async throws {
        _ = try await client.releaseDisk(.with { $0.disk = id }, timeout: timeout)
    }

    func exec(
        _ id: String, exec: String, _ process: Process, cgroup: String = "", streams: StreamNumbers
    ) async throws {
        let request = try AgentExecProcessRequest.with {
            $0.containerID = name(id)
            $0.execID = exec
            $0.processJson = try encoded(process)
            $0.streams = AgentStreams(streams)
            $0.cgroup = cgroup
        }
        let _: AgentStartContainerResponse = try await traced("ExecProcess", \.spans) { metadata in
            try await client.execProcess(request, metadata: metadata, timeout: timeout)
        }
    }

    /// Suspends as long as the process lives. There is no deadline: the call ends with the connection, which the heartbeat
    /// watches.
    func waitForExit(_ id: String, exec: String) async throws -> ProcessExit {
        let reply = try await client.waitProcess(
            .with {
                $0.containerID = name(id)
                $0.execID = exec
            }, timeout: TTRPCClient.noTimeout)
        return ProcessExit(reply)
    }

    func signal(_ id: String, exec: String, _ signal: UInt32, all: Bool) async throws {
        _ = try await client.signalProcess(
            .with {
                $0.containerID = name(id)
                $0.execID = exec
                $0.signal = signal
                $0.all = all
            }, timeout: timeout)
    }

    func resize(_ id: String, exec: String, width: UInt32, height: UInt32) async throws {
        _ = try await client.resizePty(
            .with {
                $0.containerID = name(id)
                $0.execID = exec
                $0.width = width
                $0.height = height
            }, timeout: timeout)
    }

    func pause(_ id: String) async throws {
        _ = try await client.pauseContainer(.with { $0.containerID = name(id) }, timeout: timeout)
    }

    func resume(_ id: String) async throws {
        _ = try await client.resumeContainer(.with { $0.containerID = name(id) }, timeout: timeout)
    }

    /// Changes a container's limits; what `resources` leaves out stays as it is.
    func update(_ id: String, _ resources: Linux.Resources) async throws {
        _ = try await client.updateContainer(
            .with {
                $0.containerID = name(id)
                $0.resourcesJson = try encoded(resources)
            }, timeout: timeout)
    }

    /// A container's processes, with their ids in the guest. Not inlined: in a loop the compiler of Swift 6.3 crashes on it.
    @inline(never)
    func processes(_ id: String) async throws -> [GuestProcess] {
        try await client.listProcesses(.with { $0.containerID = name(id) }, timeout: timeout).processes
            .prefix(Self.longestList).map(GuestProcess.init)
    }

    /// What the guest as a whole uses.
    func guestStatistics() async throws -> AgentGuestStatsResponse {
        try await client.guestStats(.init(), timeout: timeout)
    }

    /// Has the guest drop page cache that nobody has used of late.
    ///
    /// - Parameter cacheFloor: so much of it stays, bytes.
    func reclaimMemory(cacheFloor: UInt64) async throws -> AgentReclaimMemoryResponse {
        try await client.reclaimMemory(.with { $0.cacheFloorBytes = cacheFloor }, timeout: timeout)
    }

    /// Has the guest run on so many of the CPUs that its machine has, and leave the others alone.
    func useProcessors(_ count: Int) async throws {
        _ = try await client.useProcessors(.with { $0.count = UInt32(clamping: count) }, timeout: timeout)
    }

    /// Has the file systems on the machine's disks stand still.
    ///
    /// - Parameter limit: after this they go on by themselves.
    /// - Returns: how many there are.
    func freezeDisks(for limit: Duration) async throws -> Int {
        Int(
            try await client.freezeDisks(
                .with { $0.timeoutMs = UInt32(clamping: limit.components.seconds * 1000) }, timeout: timeout
            ).fileSystems)
    }

    /// - Returns: whether they stood still until now.
    func thawDisks() async throws -> Bool { try await client.thawDisks(.init(), timeout: timeout).wereFrozen }

    func statistics(_ id: String) async throws -> ContainerStatistics {
        ContainerStatistics(try await client.containerStats(.with { $0.containerID = name(id) }, timeout: timeout))
    }

    /// Suspends until the guest's kernel has killed more of a container's processes for OOM than `seen`, or the container
    /// has gone.
    ///
    /// - Returns: how many it has killed so far.
    func waitForOOM(_ id: String, seen: UInt64) async throws -> UInt64 {
        try await client.waitOOM(
            .with {
                $0.containerID = name(id)
                $0.seen = seen
            }, timeout: TTRPCClient.noTimeout
        ).oomKills
    }

    private func encoded(_ value: some Encodable) throws -> Data { Data(try JSON.encode(value)) }
}

/// The numbers by which the agent knows a process's streams; 0: the process has no such stream.
struct StreamNumbers: Sendable, Equatable {
    var stdin: UInt64 = 0
    var stdout: UInt64 = 0
    var stderr: UInt64 = 0
    /// Whether the process's terminal leaves line feeds as they are: that of whoever reads makes new lines of them.
    var keepsLineFeeds = false
}

extension AgentStreams {
    fileprivate init(_ numbers: StreamNumbers) {
        self.init()
        (stdin, stdout, stderr) = (numbers.stdin, numbers.stdout, numbers.stderr)
        keepsLineFeeds = numbers.keepsLineFeeds
    }
}

// What the agent replies, as far as it can be used: a guest may put any number there.

extension GuestAgent.ProcessExit {
    init(_ reply: AgentWaitProcessResponse) {
        self.init(
            record: ExitRecord(
                status: reply.exitStatus & 0xff, at: min(max(0, reply.exitedAt), wallClockNanoseconds()),
                signal: reply.signal & 0x7f),
            oomKills: reply.oomKills)
    }
}

extension GuestProcess {
    init(_ process: AgentListProcessesResponse.Process) {
        self.init(
            pid: process.pid, userID: process.userID, command: printable(process.command, limit: 1024),
            parent: process.parent,
            age: process.age, cpuTime: process.cpuTime, terminal: printable(process.terminal, limit: 64))
    }
}

extension ContainerStatistics {
    init(_ reply: AgentContainerStatsResponse) {
        self.init(
            pidsCurrent: reply.pidsCurrent, pidsLimit: reply.pidsLimit, cpu: reply.cpu, memory: reply.memory,
            memoryEvents: reply.memoryEvents, memoryUsage: reply.memoryUsage, memoryLimit: reply.memoryLimit,
            memoryPeak: reply.memoryPeak, swapUsage: reply.swapUsage, swapLimit: reply.swapLimit,
            disks: reply.disks.prefix(GuestAgent.longestList).map {
                .init(major: $0.major, minor: $0.minor, counters: $0.counters)
            },
            hugePages: reply.hugePages.prefix(GuestAgent.longestList).map {
                .init(
                    pageSize: printable($0.pageSize, limit: 64), current: $0.current, limit: $0.limit,
                    failures: $0.failures)
            })
    }
}
