import AgentAPI
import AgentContract
import Glibc
import GuestSystem
import LinuxSystem
import OCISpec
import TTRPC

/// The agent's service: what comes over the wire is converted here, and nowhere else.
struct AgentCalls: AgentService {
    let sandbox: Sandbox
    let configuration: AgentConfiguration
    let machine: GuestMachine
    private let diskFreeze = DiskFreeze()

    init(sandbox: Sandbox, configuration: AgentConfiguration, machine: GuestMachine) {
        (self.sandbox, self.configuration, self.machine) = (sandbox, configuration, machine)
    }

    func createSandbox(
        _ request: AgentCreateSandboxRequest, context: TTRPCContext
    ) async throws -> AgentCreateSandboxResponse {
        try await perform("create sandbox \(request.sandboxID)") { () async throws(AgentFailure) in
            let version = AgentProtocol.version
            let spans = CallSpans(context)
            if let reason = AgentProtocol.mismatch(agent: version, host: request.protocolVersion) {
                throw AgentFailure(.failedPrecondition, reason)
            }
            try spans.step("entropy and time") { () throws(AgentFailure) in
                try refresh(entropy: request.entropy, now: request.now)
            }
            try await sandbox.create(request)
            return .with {
                $0.protocolVersion = version
                $0.martletVersion = martletVersion
                $0.spans = spans.finished("create the sandbox")
            }
        }
    }

    func destroySandbox(_ request: AgentEmpty, context: TTRPCContext) async throws -> AgentEmpty {
        try await perform("destroy the sandbox") { () throws(AgentFailure) in
            try machine.powerOff()
            return AgentEmpty()
        }
    }

    func makeVolume(_ request: AgentMakeVolumeRequest, context: TTRPCContext) async throws -> AgentEmpty {
        try await perform("make volume \(request.name)") { () async throws(AgentFailure) in
            let volumes = sandbox.volumes
            try await blocking("volume") { () throws(AgentFailure) in try volumes.make(request) }
            return AgentEmpty()
        }
    }

    func writeVolume(_ request: AgentWriteVolumeRequest, context: TTRPCContext) async throws -> AgentEmpty {
        try await perform("write volume \(request.name)") { () async throws(AgentFailure) in
            let volume = try sandbox.volumes.find(request.name)
            try await blocking("volume") { () throws(AgentFailure) in try volume.write(request) }
            return AgentEmpty()
        }
    }

    func createContainer(
        _ request: AgentCreateContainerRequest, context: TTRPCContext
    ) async throws -> AgentCreateContainerResponse {
        try await perform("create container \(request.containerID)") { () async throws(AgentFailure) in
            let spans = CallSpans(context)
            let pid = try await sandbox.createContainer(request, spans)
            return .with {
                $0.pid = pid
                $0.spans = spans.finished("create the container")
            }
        }
    }

    func startContainer(
        _ request: AgentProcessRequest, context: TTRPCContext
    ) async throws -> AgentStartContainerResponse {
        try await perform("start container \(request.containerID)") { () async throws(AgentFailure) in
            guard request.execID.isEmpty else {
                throw AgentFailure(.failedPrecondition, "process \(request.execID) was started when it was made")
            }
            let spans = CallSpans(context)
            let container = try await sandbox.container(request.containerID)
            let pid = try await container.start()
            configuration.faults.started(container.spec)
            return .with {
                $0.pid = pid
                $0.spans = spans.finished("execute the program")
            }
        }
    }

    func removeContainer(_ request: AgentRemoveContainerRequest, context: TTRPCContext) async throws -> AgentEmpty {
        try await perform("remove container \(request.containerID)") { () async throws(AgentFailure) in
            try await sandbox.remove(request.containerID)
            return AgentEmpty()
        }
    }

    func mountShare(_ request: AgentMountShareRequest, context: TTRPCContext) async throws -> AgentEmpty {
        try await perform("mount a share of container \(request.containerID)") { () async throws(AgentFailure) in
            try await sandbox.container(request.containerID).mountShare(request.share, shares: configuration.shares)
            return AgentEmpty()
        }
    }

    func unmountShare(_ request: AgentUnmountShareRequest, context: TTRPCContext) async throws -> AgentEmpty {
        try await perform("unmount a share of container \(request.containerID)") { () async throws(AgentFailure) in
            try await sandbox.container(request.containerID).unmountShare(request)
            return AgentEmpty()
        }
    }

    func releaseDisk(_ request: AgentReleaseDiskRequest, context: TTRPCContext) async throws -> AgentEmpty {
        try await perform("release a disk") { () async throws(AgentFailure) in
            try await blocking("disk") { () throws(AgentFailure) in try Disks.release(serial: request.disk) }
            return AgentEmpty()
        }
    }

    func execProcess(
        _ request: AgentExecProcessRequest, context: TTRPCContext
    ) async throws -> AgentStartContainerResponse {
        try await perform("exec \(request.execID) in container \(request.containerID)") {
            () async throws(AgentFailure) in
            guard !request.execID.isEmpty else { throw AgentFailure(.invalidArgument, "the exec id is empty") }
            let spans = CallSpans(context)
            let process: Process = try decoded(request.processJson, "process")
            let pid =
                try await request.containerID.isEmpty
                ? sandbox.machine.exec(request.execID, process, request.streams)
                : sandbox.container(request.containerID).exec(
                    request.execID, process, request.streams, cgroup: request.cgroup)
            return .with {
                $0.pid = pid
                $0.spans = spans.finished("start the process")
            }
        }
    }

    func signalProcess(_ request: AgentSignalProcessRequest, context: TTRPCContext) async throws -> AgentEmpty {
        try await perform("signal \(name(request.containerID, request.execID))") { () async throws(AgentFailure) in
            guard let number = Int32(exactly: request.signal), (0...64).contains(number) else {
                throw AgentFailure(.invalidArgument, "\(request.signal) is not a signal")
            }
            if request.all {
                try await sandbox.container(request.containerID).signalAll(number)
            } else {
                try await find(request.containerID, request.execID).signal(number)
            }
            return AgentEmpty()
        }
    }

    func waitProcess(_ request: AgentProcessRequest, context: TTRPCContext) async throws -> AgentWaitProcessResponse {
        try await perform("wait for \(name(request.containerID, request.execID))") { () async throws(AgentFailure) in
            if request.containerID.isEmpty {
                let end = try await sandbox.machine.wait(for: request.execID)
                return .with { ($0.exitStatus, $0.signal, $0.exitedAt) = (end.status.code, end.status.signal, end.at) }
            }
            let container = try await sandbox.container(request.containerID)
            let process = try await container.process(request.execID)
            let end = await process.wait()
            if request.execID.isEmpty { await container.killRemaining() }
            let kills = await container.oomKills()
            await container.forget(request.execID, process)
            return .with {
                $0.exitStatus = end.status.code
                $0.signal = end.status.signal
                $0.exitedAt = end.at
                $0.oomKills = kills
            }
        }
    }

    func resizePty(_ request: AgentResizePtyRequest, context: TTRPCContext) async throws -> AgentEmpty {
        try await perform("resize the terminal of \(name(request.containerID, request.execID))") {
            () async throws(AgentFailure) in
            guard let rows = UInt16(exactly: request.height), let columns = UInt16(exactly: request.width) else {
                throw AgentFailure(.invalidArgument, "\(request.width)×\(request.height) is more than 65535")
            }
            let process = try await find(request.containerID, request.execID)
            try process.streams.resize(rows: rows, columns: columns)
            return AgentEmpty()
        }
    }

    func copyFiles(_ request: AgentCopyFilesRequest, context: TTRPCContext) async throws -> AgentEmpty {
        let what = "copy \(request.path) \(request.isPack ? "out of" : "into") container \(request.containerID)"
        return try await perform(what) { () async throws(AgentFailure) in
            try await sandbox.copyFiles(request)
            return AgentEmpty()
        }
    }

    func listProcesses(
        _ request: AgentListProcessesRequest, context: TTRPCContext
    ) async throws -> AgentListProcessesResponse {
        try await perform("list processes of container \(request.containerID)") { () async throws(AgentFailure) in
            let pids = try await sandbox.container(request.containerID).processes()
            return .with { $0.processes = pids.compactMap { .init(running: $0) } }
        }
    }

    func pauseContainer(_ request: AgentContainerRequest, context: TTRPCContext) async throws -> AgentEmpty {
        try await perform("pause container \(request.containerID)") { () async throws(AgentFailure) in
            try await sandbox.container(request.containerID).pause()
            return AgentEmpty()
        }
    }

    func resumeContainer(_ request: AgentContainerRequest, context: TTRPCContext) async throws -> AgentEmpty {
        try await perform("resume container \(request.containerID)") { () async throws(AgentFailure) in
            try await sandbox.container(request.containerID).resume()
            return AgentEmpty()
        }
    }

    func updateContainer(_ request: AgentUpdateContainerRequest, context: TTRPCContext) async throws -> AgentEmpty {
        try await perform("update container \(request.containerID)") { () async throws(AgentFailure) in
            let resources: Linux.Resources = try decoded(request.resourcesJson, "resources")
            try await sandbox.container(request.containerID).update(resources)
            return AgentEmpty()
        }
    }

    func containerStats(
        _ request: AgentContainerRequest, context: TTRPCContext
    ) async throws -> AgentContainerStatsResponse {
        try await perform("count what container \(request.containerID) uses") { () async throws(AgentFailure) in
            try await sandbox.container(request.containerID).statistics()
        }
    }

    func waitOOM(_ request: AgentWaitOOMRequest, context: TTRPCContext) async throws -> AgentWaitOOMResponse {
        try await perform("wait for an OOM kill in container \(request.containerID)") {
            () async throws(AgentFailure) in
            let kills = try await sandbox.container(request.containerID).waitOOM(seen: request.seen)
            return .with { $0.oomKills = kills }
        }
    }

    func updateNetwork(_ request: AgentUpdateNetworkRequest, context: TTRPCContext) async throws -> AgentEmpty {
        try await perform("update the network") { () async throws(AgentFailure) in
            let network = try NetworkRequest(request)
            try await sandbox.updateNetwork(network)
            return AgentEmpty()
        }
    }

    func updateResolvers(_ request: AgentUpdateResolversRequest, context: TTRPCContext) async throws -> AgentEmpty {
        try await perform("update the resolvers") { () throws(AgentFailure) in
            try sandbox.resolvers.update(request)
            return AgentEmpty()
        }
    }

    func detachStreams(_ request: AgentEmpty, context: TTRPCContext) async throws -> AgentEmpty {
        try await perform("detach the streams") { () async throws(AgentFailure) in
            try await sandbox.detachStreams()
            return AgentEmpty()
        }
    }

    func resumeSandbox(_ request: AgentResumeSandboxRequest, context: TTRPCContext) async throws -> AgentEmpty {
        try await perform("resume the sandbox") { () async throws(AgentFailure) in
            try refresh(entropy: request.entropy, now: request.now)
            try await sandbox.resume(request)
            return AgentEmpty()
        }
    }

    func guestDetails(_ request: AgentEmpty, context: TTRPCContext) async throws -> AgentGuestDetailsResponse {
        .with {
            $0.kernelVersion = machine.kernelVersion
            $0.agentVersion = martletVersion
            $0.cpus = machine.processorCount
            $0.memoryBytes = machine.memorySize
        }
    }

    func guestStats(_ request: AgentEmpty, context: TTRPCContext) async throws -> AgentGuestStatsResponse {
        machine.statistics()
    }

    func reclaimMemory(
        _ request: AgentReclaimMemoryRequest, context: TTRPCContext
    ) async throws -> AgentReclaimMemoryResponse {
        try await perform("reclaim memory") { () async throws(AgentFailure) in
            let reclaim = CacheReclaim(floor: request.cacheFloorBytes)
            return try await blocking("reclaim") { () throws(AgentFailure) in try reclaim.run() }
        }
    }

    func useProcessors(_ request: AgentUseProcessorsRequest, context: TTRPCContext) async throws -> AgentEmpty {
        try await perform("use CPUs") { () async throws(AgentFailure) in
            try await Processors().use(Int(request.count))
            return AgentEmpty()
        }
    }

    func freezeDisks(
        _ request: AgentFreezeDisksRequest, context: TTRPCContext
    ) async throws -> AgentFreezeDisksResponse {
        try await perform("freeze the disks") { () async throws(AgentFailure) in
            let limit = Duration.milliseconds(request.timeoutMs)
            let count = try await blocking("freeze") { [diskFreeze] () throws(AgentFailure) in
                try diskFreeze.freeze(for: limit)
            }
            return .with { $0.fileSystems = UInt32(count) }
        }
    }

    func thawDisks(_ request: AgentEmpty, context: TTRPCContext) async throws -> AgentThawDisksResponse {
        try await perform("thaw the disks") { () async throws(AgentFailure) in
            let wasFrozen = try await blocking("thaw") { [diskFreeze] () throws(AgentFailure) in diskFreeze.thaw() }
            return .with { $0.wereFrozen = wasFrozen }
        }
    }

    private func decoded<T: Decodable>(_ json: some Sequence<UInt8>, _ name: String) throws(AgentFailure) -> T {
        do throws(SpecError) {
            return try JSON.decode(T.self, from: Array(json), file: name)
        } catch {
            throw AgentFailure(.invalidArgument, error.description)
        }
    }

    /// What a guest can't know after it was restored. None and 0: it stays as it is.
    private func refresh(entropy: some Collection<UInt8>, now: Int64) throws(AgentFailure) {
        if !entropy.isEmpty { try machine.reseed(Array(entropy)) }
        if now != 0 { try machine.setClock(now) }
    }

    /// A process of a container, or of the machine itself where the container's id is empty.
    private func find(_ container: String, _ exec: String) async throws(AgentFailure) -> ContainerProcess {
        if container.isEmpty { return try await sandbox.machine.process(exec) }
        return try await sandbox.container(container).process(exec)
    }

    private func name(_ container: String, _ exec: String) -> String { Sandbox.name(container, exec) }

    /// Runs `body`, which makes the reply; its failure becomes the call's error, with what was being done.
    private func perform<R: Sendable>(
        _ what: String, _ body: () async throws(AgentFailure) -> R
    ) async throws(TTRPCError) -> R {
        do throws(AgentFailure) {
            return try await body()
        } catch {
            throw TTRPCError(Self.code(error.kind), error.during(what).message)
        }
    }

    private static func code(_ kind: AgentFailure.Kind) -> TTRPCError.Code {
        switch kind {
        case .notFound: .notFound
        case .alreadyExists: .alreadyExists
        case .failedPrecondition: .failedPrecondition
        case .invalidArgument: .invalidArgument
        case .unimplemented: .unimplemented
        case .deadlineExceeded: .deadlineExceeded
        case .internal: .internal
        // containerd writes the code behind the message; behind runc's errors stands this one.
        case .program: .unknown
        }
    }
}
