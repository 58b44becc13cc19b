import CLinux
import Glibc
import LinuxSystem
import OCISpec
import Sandbox
import TTRPC
import TaskAPI
import Tracing

/// What `create` and `run` are told.
public struct CreateOptions: Sendable {
    public var id: String
    /// The bundle's directory.
    public var bundle: String
    /// A file that gets the id of the container's process on the host.
    public var pidFile: String?
    /// A Unix socket that gets the terminal's master descriptor.
    public var consoleSocket: String?
    /// A Unix socket that gets a pidfd of the container's process on the host.
    public var pidfdSocket: String?
    /// A checkpoint's directory, an absolute path, that the container goes on from; nil: it begins.
    public var checkpoint: String?
    /// Whether the container outlives the command.
    public var isDetached: Bool
    /// Which pod the container belongs to.
    var place = Place.asBundleSays

    /// Which pod a container belongs to.
    enum Place: Sendable {
        case asBundleSays
        /// It makes one, whatever its annotations say.
        case ownPod
        /// That of another container.
        case pod(of: ContainerRecord)
    }

    public init(
        id: String, bundle: String, pidFile: String? = nil, consoleSocket: String? = nil, pidfdSocket: String? = nil,
        checkpoint: String? = nil, isDetached: Bool
    ) {
        self.checkpoint = checkpoint
        self.id = id
        self.bundle = bundle
        self.pidFile = pidFile
        self.consoleSocket = consoleSocket
        self.pidfdSocket = pidfdSocket
        self.isDetached = isDetached
    }
}

/// A container from the moment at which its id is taken, before its pod knows of it.
struct NewContainer: Sendable {
    let id: String
    let runtime: Runtime
    let options: CreateOptions
    let terminal: TerminalSession
    let task: TaskServiceClient
    /// The container's process on the host.
    var process: ChildProcess { handed.child }
    private let handed: HandedChild
    private let bundle: Bundle
    let record: ContainerRecord
    /// The pod's server, where the container does not join a pod.
    let server: ServerProcess?

    /// Takes the id, starts the pod's server unless the container joins a pod, and the container's process on the host.
    ///
    /// - Throws: what was wrong with the request; nothing is left then.
    init(_ options: CreateOptions, _ runtime: Runtime) async throws {
        let id = try ContainerID(options.id).value
        // Read here too, for the terminal, and so that bad input is refused before anything starts.
        let bundle = try Bundle(directory: options.bundle)
        terminal = try TerminalSession(
            isRequested: bundle.spec.process?.terminal ?? false, consoleSocket: options.consoleSocket,
            isDetached: options.isDetached)
        try runtime.forgetDead(id)
        try runtime.records.claim(id)
        do {
            var record: ContainerRecord
            (record, server, task) = try await Self.place(bundle, options, runtime)
            do {
                handed = try HandedChild(
                    HostProcess.title(container: id, pod: record.pod), stdio: terminal.stdio, to: record.socket,
                    isDetached: options.isDetached)
                record.note(pid: handed.child.pid)
                try runtime.records.write(record)
                self.record = record
            } catch {
                await server?.finish()
                throw error
            }
        } catch {
            runtime.records.remove(id)
            throw error
        }
        (self.id, self.bundle, self.options, self.runtime) = (id, bundle, options, runtime)
    }

    /// Finds the container's pod, or starts a server for a new one, and writes the container's record.
    ///
    /// When this returns, the server alone holds the pod's lock and its sockets: when it dies, whoever waits for a reply learns that.
    ///
    /// - Returns: the record, the server where one was started, and the pod's Task service.
    private static func place(
        _ bundle: Bundle, _ options: CreateOptions, _ runtime: Runtime
    ) async throws -> (ContainerRecord, ServerProcess?, TaskServiceClient) {
        let claim = try await claim(bundle, options, runtime)
        let record = ContainerRecord(
            id: options.id, bundle: bundle.directory, rootfs: bundle.rootPath, annotations: bundle.spec.annotations,
            pod: claim.id, podDirectory: claim.directory.path, socket: claim.socket)
        // Before there is a server: who deletes the container finds it.
        try runtime.records.write(record)
        switch claim {
        case .joined(_, _, let socket): return (record, nil, TaskServiceClient(try await TTRPCClient(unixPath: socket)))
        case .new(let pod, let directory, let lock, let listeners):
            let server = try await ServerProcess.start(
                id: pod, bundle.spec, directory, lock: lock, listeners, isDetached: options.isDetached, runtime)
            return (record, server, server.task)
        }
    }

    private static func claim(
        _ bundle: Bundle, _ options: CreateOptions, _ runtime: Runtime
    ) async throws -> PodMembership.Claim {
        switch options.place {
        case .asBundleSays:
            return try await PodMembership(id: options.id, spec: bundle.spec, root: runtime.root).claim()
        case .ownPod:
            var spec = bundle.spec
            spec.annotations = [:]
            let claim = try await PodMembership(id: options.id, spec: spec, root: runtime.root).claim()
            guard case .joined(let pod, _, _) = claim else { return claim }
            throw SandboxError.wrongState(
                "config.json: linux.namespaces: the network namespace is that of pod \(pod), which runs")
        case .pod(let record):
            return .joined(id: record.pod, record.podDirectory, socket: record.socket)
        }
    }

    /// Has the pod make the container.
    func create() async throws {
        defer { withExtendedLifetime(handed) {} }
        let logger = try runtime.output.logger()
        logger.debug("container \(id): creation begins: pid \(process.pid) on the host")
        let request = TaskCreateTaskRequest.with {
            $0.id = id
            $0.bundle = bundle.directory
            $0.terminal = terminal.isRequested
            $0.stdin = handed.name
            $0.checkpoint = options.checkpoint ?? ""
        }
        _ = try await withSpan("create", ofKind: .client) { _ in
            var metadata = CommandTrace.metadata
            metadata.entries += terminal.metadata.entries
            return try await task.create(request, metadata: metadata, timeout: Runtime.requestTimeout)
        }
        logger.debug("container \(id): created")
        if let socket = options.pidfdSocket { try sendPIDFD(of: process.pid, to: socket) }
        if let file = options.pidFile { try writePID(process.pid, to: file) }
    }

    func start() async throws {
        _ = try await withSpan("start", ofKind: .client) { _ in
            try await task.start(
                .with { $0.id = id }, metadata: CommandTrace.metadata, timeout: Runtime.requestTimeout)
        }
    }

    /// Takes everything away, whatever has been made. No error when there is nothing.
    func abandon() async {
        process.signal(SIGKILL)
        if let server {
            await server.finish()
        } else {
            _ = try? await task.delete(.with { $0.id = id }, timeout: .seconds(10))
        }
        if let file = options.pidFile { unlink(file) }
        runtime.records.remove(id)
    }
}

/// A process on the host that this command has started and handed to a pod's server.
struct HandedChild: Sendable {
    let child: ChildProcess
    /// What stands for it in a request.
    let name: String
    /// What nobody has named goes with it: the value must live until the request that names it has been answered.
    private let connection: SharedDescriptor

    /// - Parameters:
    ///   - socket: of the pod's Task service.
    ///   - isDetached: whether the process outlives this command: whoever called the command, and becomes the process's parent then,
    ///     waits for its end, which may come before the command's.
    init(_ title: [String], stdio: [SharedDescriptor], to socket: String, isDetached: Bool) throws {
        let (child, control) = try withExtendedLifetime(stdio) {
            try HostProcess.spawn(title, stdio: stdio.map(\.raw), isReaped: !isDetached)
        }
        do {
            // From here on the server alone has the control socket: the process ends with the server.
            let (number, connection) = try HandedProcesses.hand(child.pid, control: control, stdio: stdio, to: socket)
            (name, self.connection, self.child) = (HandedProcesses.name(number), connection, child)
        } catch {
            child.signal(SIGKILL)
            throw error
        }
    }
}

extension Runtime {
    /// `create`: a container whose program waits for `start`. Its pod outlives this process.
    public func create(_ options: CreateOptions) async throws {
        try requireRoot(for: "create")
        try await asking {
            let container = try await NewContainer(options, self)
            do { try await container.create() } catch {
                await container.abandon()
                throw error
            }
        }
    }
}

/// Sends a descriptor of a process to the listener at a Unix socket, as runc's --pidfd-socket has it.
func sendPIDFD(of pid: Int32, to path: String) throws {
    let descriptor = OwnedDescriptor(owning: try check("pidfd_open", "\(pid)", martlet_pidfd_open(pid, 0)))
    try Terminal.send(SharedDescriptor(descriptor), name: "pidfd", to: path)
}
