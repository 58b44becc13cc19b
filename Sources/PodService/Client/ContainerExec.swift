import CLinux
import Glibc
import LinuxSystem
import OCISpec
import Sandbox
import TTRPC
import TaskAPI

/// What `exec` is told.
public struct ExecOptions: Sendable {
    public var id: String
    /// A file with the process, as the specification has it; nil: the container's own process as `changes` says.
    public var processFile: String?
    /// What differs from the container's own process.
    public var changes: @Sendable (inout Process) throws -> Void
    public var pidFile: String?
    public var consoleSocket: String?
    public var pidfdSocket: String?
    public var isDetached: Bool
    /// Whether a paused container's process waits for `resume`; otherwise it is refused.
    public var ignoresPaused: Bool
    /// A cgroup below the container's, in which the process starts; empty: the container's.
    public var cgroup: String

    public init(
        id: String, processFile: String? = nil, pidFile: String? = nil, consoleSocket: String? = nil,
        pidfdSocket: String? = nil, isDetached: Bool = false, ignoresPaused: Bool = false, cgroup: String = "",
        changes: @Sendable @escaping (inout Process) throws -> Void = { _ in }
    ) {
        self.id = id
        self.processFile = processFile
        self.changes = changes
        self.pidFile = pidFile
        self.consoleSocket = consoleSocket
        self.pidfdSocket = pidfdSocket
        self.isDetached = isDetached
        self.ignoresPaused = ignoresPaused
        self.cgroup = cgroup
    }
}

extension Runtime {
    /// The metadata of an Exec request that name the process's cgroup: containerd's request has no field for it.
    static let execCgroupKey = "martlet.cgroup"

    /// `exec`: a further process in a container that is created or running.
    ///
    /// - Returns: its exit code; 128 + n when signal n ended it. 0 at once for one that is detached.
    public func exec(_ options: ExecOptions) async throws -> Int32 {
        try await asking { try await execute(options) }
    }

    private func execute(_ options: ExecOptions) async throws -> Int32 {
        let logger = try output.logger()
        let container = try await open(options.id)
        let task = try await server(for: options, container)
        let process = try process(options, of: container.record)
        let terminal = try TerminalSession(
            isRequested: process.terminal, consoleSocket: options.consoleSocket, isDetached: options.isDetached)
        let signals = try options.isDetached ? nil : SignalQueue(ForwardedSignals.all)
        let exec = "exec-\(String(UInt64.random(in: 0 ... .max), radix: 36))"
        let title = HostProcess.title(container: options.id, exec: exec, pod: container.record.pod)
        let handed = try HandedChild(
            title, stdio: terminal.stdio, to: container.record.socket, isDetached: options.isDetached)
        let child = handed.child
        defer { withExtendedLifetime(handed) {} }
        logger.debug("container \(options.id): exec of \(process.args.first ?? ""): pid \(child.pid) on the host")
        do {
            let bytes = try JSON.encode(process)
            var metadata = terminal.metadata
            if !options.cgroup.isEmpty { metadata.entries.append((Runtime.execCgroupKey, options.cgroup)) }
            _ = try await task.exec(
                .with {
                    $0.id = options.id
                    $0.execID = exec
                    $0.terminal = process.terminal
                    $0.stdin = handed.name
                    $0.spec = .with { $0.value = .init(bytes) }
                }, metadata: metadata, timeout: Runtime.requestTimeout)
            terminal.begin()
            _ = try await task.start(
                .with {
                    $0.id = options.id
                    $0.execID = exec
                }, timeout: Runtime.requestTimeout)
            logger.debug("container \(options.id): exec: the program runs")
            if let socket = options.pidfdSocket { try sendPIDFD(of: child.pid, to: socket) }
            if let file = options.pidFile { try writePID(child.pid, to: file) }
        } catch {
            terminal.end()
            child.signal(SIGKILL)
            let request = TaskDeleteRequest.with {
                $0.id = options.id
                $0.execID = exec
            }
            _ = try? await task.delete(request, timeout: .seconds(10))
            throw error
        }
        guard let signals else { return 0 }
        defer { terminal.end() }
        let forwarding = Task {
            await terminal.resize(task, container: options.id, exec: exec)
            await signals.pass(to: child) { await terminal.resize(task, container: options.id, exec: exec) }
        }
        defer { forwarding.cancel() }
        return await child.end().status
    }

    private func server(for options: ExecOptions, _ container: OpenContainer) async throws -> TaskServiceClient {
        var state = try await container.status().state
        while state == .paused, options.ignoresPaused {
            try await Task.sleep(for: .milliseconds(50))
            state = try await container.status().state
        }
        switch state {
        case .created, .running: break
        case .stopped: throw SandboxError.wrongState("cannot exec in a stopped container")
        case .paused:
            throw SandboxError.wrongState("cannot exec in a paused container (use --ignore-paused to override)")
        case .creating: throw SandboxError.wrongState("cannot exec in a container that is being created")
        }
        return try container.server()
    }

    private func process(_ options: ExecOptions, of record: ContainerRecord) throws -> Process {
        if let file = options.processFile {
            let text = try readText(file, limit: Bundle.maximumConfigSize)
            return try JSON.decode(Process.self, from: Array(text.utf8), file: file)
        }
        guard var process = try Bundle(directory: record.bundle).spec.process else {
            throw SandboxError.invalid("\(record.bundle)/config.json: process: missing")
        }
        process.terminal = false
        process.args = []
        try options.changes(&process)
        return process
    }
}
