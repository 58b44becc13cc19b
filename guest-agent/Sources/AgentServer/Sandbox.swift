import AgentAPI
import AgentContract
import Glibc
import GuestSystem
import LinuxSystem
import OCISpec
import TTRPC

/// The pod in this guest: its containers and what they share.
actor Sandbox {
    private enum Entry {
        case creating
        case ready(Container)
    }

    nonisolated let volumes: Volumes
    nonisolated let resolvers: Resolvers
    nonisolated let machine: MachineProcesses
    private let configuration: AgentConfiguration
    private let launcher: InitLauncher
    private let table: StreamTable
    private var id: String?
    private var network: Task<Result<Void, AgentFailure>, Never>?
    private var containers: [String: Entry] = [:]

    init(_ configuration: AgentConfiguration, launcher: InitLauncher, table: StreamTable) {
        self.configuration = configuration
        volumes = Volumes(directory: configuration.volumes)
        resolvers = Resolvers(link: table.link)
        machine = MachineProcesses(
            launcher: launcher, table: table, controlGroup: configuration.machineGroup)
        self.launcher = launcher
        self.table = table
    }

    func create(_ request: AgentCreateSandboxRequest) throws(AgentFailure) {
        if let id { throw AgentFailure(.alreadyExists, "the sandbox is \(id) already") }
        _ = try Self.checked(request.sandboxID)
        try Self.setHostname(request.hostname)
        if request.sharedMemoryBytes > 0 {
            try during("size /dev/shm") {
                try GuestMounts.mountAt(
                    "tmpfs", GuestPath.sharedMemory, "tmpfs",
                    MountFlag.remount | MountFlag.noSetID | MountFlag.noDevices,
                    "size=\(request.sharedMemoryBytes)")
            }
        }
        id = request.sandboxID
    }

    /// Sets the guest's host name; an empty one leaves it as it is.
    static func setHostname(_ name: String) throws(AgentFailure) {
        if name.isEmpty { return }
        guard name.utf8.count <= AgentLimit.hostnameBytes, !name.utf8.contains(0) else {
            throw AgentFailure(
                .invalidArgument, "hostname: longer than \(AgentLimit.hostnameBytes) bytes, or with a zero byte")
        }
        try during("set hostname \(name)") { try check("sethostname", "", sethostname(name, name.utf8.count)) }
    }

    // MARK: Streams

    /// Detaches the streams of all processes.
    ///
    /// - Throws: what is not detached, by its name; all other streams are.
    func detachStreams() async throws(AgentFailure) {
        var detaching: [(name: String, stream: ProcessStreams.Detaching)] = []
        var failures: [String] = []
        for id in containers.keys.sorted() {
            do throws(AgentFailure) {
                for (execID, streams) in try await container(id).streams() {
                    let name = Self.name(id, execID)
                    let begun = try during("detach the streams of \(name)") { try streams.detach() }
                    for stream in begun { detaching.append((name, stream)) }
                }
            } catch { failures.append("container \(id): \(error.message)") }
        }
        let late = try await blocking("detach") { [detaching] () throws(AgentFailure) in Self.wait(for: detaching) }
        if failures.isEmpty, late.isEmpty { return }
        throw AgentFailure(
            failures.isEmpty ? .deadlineExceeded : .failedPrecondition, (failures + late).joined(separator: "; "))
    }

    /// Copies files out of a container, or into it.
    func copyFiles(_ request: AgentCopyFilesRequest) async throws(AgentFailure) {
        do throws(AgentFailure) {
            try await container(request.containerID).copy(request)
        } catch {
            table.refuse(request.stream)
            throw error
        }
    }

    /// Blocks until all are detached.
    ///
    /// - Returns: what is not when the time is over.
    private static func wait(for detaching: [(name: String, stream: ProcessStreams.Detaching)]) -> [String] {
        let clock = ContinuousClock()
        let end = clock.now + .seconds(AgentLimit.detachSeconds)
        return detaching.compactMap { name, detaching in
            if detaching.done.wait(timeout: max(.zero, end - clock.now)) != nil { return nil }
            detaching.stream.giveUpMissing()
            return "\(detaching.stream.name) of \(name) \(detaching.stream.obstacle)"
        }
    }

    /// Gives the sandbox its host name again, and the processes' streams other connections.
    func resume(_ request: AgentResumeSandboxRequest) async throws(AgentFailure) {
        guard id != nil else { throw AgentFailure(.failedPrecondition, "there is no sandbox yet") }
        do throws(AgentFailure) {
            var attached: [(streams: ProcessStreams?, numbers: AgentStreams)] = []
            for process in request.processes {
                do throws(AgentFailure) {
                    let streams = try await container(process.containerID).streams(of: process.execID)
                    try streams?.checkDetached()
                    attached.append((streams, process.streams))
                    try await container(process.containerID).setHostname(process.hostname)
                } catch { throw error.during(Self.name(process.containerID, process.execID)) }
            }
            try Self.setHostname(request.hostname)
            for (streams, numbers) in attached {
                if let streams { streams.attach(numbers) } else { table.refuse(numbers) }
            }
        } catch {
            for process in request.processes { table.discard(process.streams) }
            throw error
        }
    }

    /// For messages.
    static func name(_ container: String, _ exec: String) -> String {
        if container.isEmpty { return "process \(exec) of the machine" }
        return exec.isEmpty ? "container \(container)" : "process \(exec) of container \(container)"
    }

    // MARK: The network

    /// Configures the guest's network. Requests are handled one at a time, so the last one counts.
    func updateNetwork(_ request: NetworkRequest) async throws(AgentFailure) {
        let before = network
        let update = Task { () -> Result<Void, AgentFailure> in
            _ = await before?.result
            do throws(AgentFailure) {
                try await blocking("network") { () throws(AgentFailure) in try GuestNetwork(request).converge() }
                return .success(())
            } catch { return .failure(error) }
        }
        network = update
        try await update.value.get()
    }

    // MARK: Containers

    func createContainer(
        _ request: AgentCreateContainerRequest, _ spans: CallSpans?
    ) async throws(AgentFailure) -> UInt32 {
        guard id != nil else { throw AgentFailure(.failedPrecondition, "there is no sandbox yet") }
        let id = try Self.checked(request.containerID)
        guard containers[id] == nil else { throw AgentFailure(.alreadyExists, "a container of that id exists") }
        let others = containers.compactMapValues { if case .ready(let other) = $0 { other.first } else { nil } }
        containers[id] = .creating
        do throws(AgentFailure) {
            let creation = ContainerCreation(
                id: id, configuration: configuration, launcher: launcher, table: table, volumes: volumes,
                others: others, spans: spans)
            let parts = try await blocking("create") { () throws(AgentFailure) in try creation.make(request) }
            let container = Container(parts, launcher: launcher, table: table)
            containers[id] = .ready(container)
            return parts.process.pid
        } catch {
            containers[id] = nil
            table.discard(request.streams)
            throw error
        }
    }

    func remove(_ id: String) async throws(AgentFailure) {
        try await container(id).remove()
        containers[id] = nil
    }

    func container(_ id: String) throws(AgentFailure) -> Container {
        switch containers[id] {
        case .ready(let container): return container
        case .creating: throw AgentFailure(.failedPrecondition, "it is being created")
        case nil: throw AgentFailure(.notFound, "no such container")
        }
    }

    /// The name of a directory of its own: no other id gets that far.
    private static func checked(_ id: String) throws(AgentFailure) -> String {
        do throws(SpecError) {
            return try ContainerID(id).value
        } catch {
            throw AgentFailure(.invalidArgument, error.description)
        }
    }
}
