import CLinux
import Glibc
import LinuxSystem
import OCISpec
import Sandbox
import TTRPC
import TaskAPI

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
    /// Whether the container outlives the command.
    public var isDetached: Bool

    public init(
        id: String, bundle: String, pidFile: String? = nil, consoleSocket: String? = nil, pidfdSocket: String? = nil,
        isDetached: Bool
    ) {
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
    let process: ChildProcess
    private let control: SharedDescriptor
    private let bundle: Bundle
    private var record: ContainerRecord
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
            let pod = try await Self.pod(for: id, bundle, options, runtime)
            (server, task) = (pod.server, pod.task)
            let title = HostProcess.title(container: id, pod: pod.id)
            let stdio = terminal.stdio
            (process, control) = try withExtendedLifetime(stdio) {
                try HostProcess.spawn(title, stdio: stdio.map(\.raw))
            }
            record = ContainerRecord(
                id: id, bundle: bundle.directory, rootfs: bundle.rootPath, annotations: bundle.spec.annotations,
                pod: pod.id, podRoot: pod.root, socket: pod.socket)
            record.note(pid: process.pid)
            try runtime.records.write(record)
        } catch {
            runtime.records.remove(id)
            throw error
        }
        (self.id, self.bundle, self.options, self.runtime) = (id, bundle, options, runtime)
    }

    /// The pod that a container is made in.
    private struct Pod {
        var id: String
        var root: String
        var socket: String
        var task: TaskServiceClient
        var server: ServerProcess?
    }

    private static func pod(
        for id: String, _ bundle: Bundle, _ options: CreateOptions, _ runtime: Runtime
    ) async throws -> Pod {
        var name = id
        var number = 1
        while true {
            do {
                let server = try await ServerProcess.start(id: name, isDetached: options.isDetached, runtime)
                return Pod(id: name, root: runtime.root, socket: server.socket, task: server.task, server: server)
            } catch SandboxError.alreadyExists where number < 1000 {
                // A pod whose first container had this id and has been deleted.
                number += 1
                name = "\(id)-\(number)"
            }
        }
    }

    /// Has the pod make the container.
    func create() async throws {
        let (number, connection) = try HandedProcesses.hand(
            process.pid, control: control, stdio: terminal.stdio, to: record.socket)
        defer { withExtendedLifetime(connection) {} }
        _ = try await task.create(
            .with {
                $0.id = id
                $0.bundle = bundle.directory
                $0.terminal = terminal.isRequested
                $0.stdin = HandedProcesses.name(number)
            }, timeout: Runtime.requestTimeout)
        if let socket = options.pidfdSocket { try sendPIDFD(of: process.pid, to: socket) }
        if let file = options.pidFile { try writePID(process.pid, to: file) }
    }

    func start() async throws {
        _ = try await task.start(.with { $0.id = id }, timeout: Runtime.requestTimeout)
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

extension Runtime {
    /// `create`: a container whose program waits for `start`. Its pod outlives this process.
    public func create(_ options: CreateOptions) async throws {
        try requireRoot(for: "create")
        let container = try await NewContainer(options, self)
        do { try await container.create() } catch {
            await container.abandon()
            throw error
        }
    }
}

/// Sends a descriptor of a process to the listener at a Unix socket, as runc's --pidfd-socket has it.
func sendPIDFD(of pid: Int32, to path: String) throws {
    let descriptor = OwnedDescriptor(owning: try check("pidfd_open", "\(pid)", martlet_pidfd_open(pid, 0)))
    try Terminal.send(SharedDescriptor(descriptor), name: "pidfd", to: path)
}
