import Glibc
import LinuxSystem
import Logging
import OCISpec
import Sandbox
import Synchronization
import TTRPC
import TaskAPI

/// `martlet run`: a container in the foreground, from its creation to its end. Only a client of the pod's server.
public struct RunCommand: Sendable {
    public var id: String
    public var bundle: String
    public var root: String
    public var pidFile: String?
    public var consoleSocket: String?
    public var configurationFile: String?
    public var output: LogOutput

    public init(
        id: String, bundle: String, root: String, pidFile: String? = nil, consoleSocket: String? = nil,
        configurationFile: String? = nil, output: LogOutput
    ) {
        self.id = id
        self.bundle = bundle
        self.root = root
        self.pidFile = pidFile
        self.consoleSocket = consoleSocket
        self.configurationFile = configurationFile
        self.output = output
    }

    /// Exit code when the VM, the server or Martlet itself failed while a container ran.
    static let failure: Int32 = 255

    /// Runs the container.
    ///
    /// - Returns: its exit code; 128 + n when signal n ended it, 255 when its VM ended under it.
    /// - Throws: what was wrong with the request; nothing is left then.
    public func run(logger: Logger) async throws -> Int32 {
        let id = try ContainerID(id).value
        guard geteuid() == 0 else {
            throw SandboxError.invalid("martlet run must be run as root (user id 0, not \(geteuid()))")
        }
        // Read here too, for the terminal, and so that bad input is refused before anything starts.
        let bundle = try Bundle(directory: bundle)
        let terminal = try TerminalSession(
            isRequested: bundle.spec.process?.terminal ?? false, consoleSocket: consoleSocket)
        let signals = try SignalQueue([SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH])
        let server = try await ServerProcess.start(
            id: id, root: root, configurationFile: configurationFile, output: output, stdio: terminal.stdio)
        do {
            let status = try await follow(server, bundle, terminal, signals)
            await server.finish()
            return status
        } catch {
            if let end = server.child.waitForEnd(timeout: .milliseconds(isConnectionLoss(error) ? 1000 : 0)) {
                await server.finish()
                logger.error("container \(id): the pod's server \(end)")
                return RunCommand.failure
            }
            await server.finish()
            if let pidFile { unlink(pidFile) }
            if let error = error as? TTRPCError {
                if error.code == .aborted {
                    logger.error("container \(id): \(error.message)")
                    return RunCommand.failure
                }
                throw SandboxError.failed(error.message)
            }
            throw error
        }
    }

    private func isConnectionLoss(_ error: any Error) -> Bool { (error as? TTRPCError)?.code == .unavailable }

    private func follow(_ server: ServerProcess, _ bundle: Bundle, _ terminal: TerminalSession, _ signals: SignalQueue)
        async throws -> Int32
    {
        let task = server.task
        let progress = Progress()
        let forwarding = Task { await forward(signals, to: task, terminal, progress) }
        defer { forwarding.cancel() }
        let created: TaskCreateTaskResponse
        do {
            created = try await task.create(
                .with {
                    $0.id = id
                    $0.bundle = bundle.directory
                    $0.terminal = terminal.isRequested
                    $0.stdin = "fd:\(PodServer.Descriptor.stdin)"
                    $0.stdout = "fd:\(PodServer.Descriptor.stdout)"
                    $0.stderr = terminal.isRequested ? "" : "fd:\(PodServer.Descriptor.stderr)"
                }, timeout: RunCommand.requestTimeout)
        } catch {
            // Ended by the person who started it, as any process would be.
            if let signal = progress.state.withLock({ $0.signal }) { return 128 + signal }
            throw error
        }
        progress.state.withLock { $0.isCreated = true }
        if let pidFile { try writePID(created.pid, to: pidFile) }
        try await terminal.resize(task, id)
        terminal.begin()
        defer { terminal.end() }
        _ = try await task.start(.with { $0.id = id }, timeout: RunCommand.requestTimeout)
        let ended = try await task.wait(.with { $0.id = id }, timeout: TTRPCClient.noTimeout)
        _ = try? await task.delete(.with { $0.id = id }, timeout: RunCommand.requestTimeout)
        return Int32(ended.exitStatus & 0xff)
    }

    /// How far the container has come, and the signal that ended its creation.
    private final class Progress: Sendable {
        let state = Mutex<(isCreated: Bool, signal: Int32?)>((false, nil))
    }

    /// The server has deadlines of its own, each shorter than this.
    private static let requestTimeout: Duration = .seconds(600)

    private func forward(
        _ signals: SignalQueue, to task: TaskServiceClient, _ terminal: TerminalSession, _ progress: Progress
    ) async {
        for await signal in signals.stream {
            if signal == SIGWINCH {
                try? await terminal.resize(task, id)
                continue
            }
            let isCreated = progress.state.withLock { state in
                if !state.isCreated { state.signal = signal }
                return state.isCreated
            }
            await send(signal, to: task, isCreated)
        }
    }

    private func send(_ signal: Int32, to task: TaskServiceClient, _ isCreated: Bool) async {
        while true {
            do throws(TTRPCError) {
                _ = try await task.kill(
                    .with {
                        $0.id = id
                        $0.signal = UInt32(signal)
                    }, timeout: .seconds(10))
                return
            } catch {
                // A process that has just ended takes no signal; that is no failure. One whose creation the server has not
                // begun yet is asked again.
                guard !isCreated, error.code == .notFound, !Task.isCancelled else { return }
                try? await Task.sleep(for: .milliseconds(10))
            }
        }
    }

    /// Written beside and renamed: who waits for the file never reads half of it.
    private func writePID(_ pid: UInt32, to path: String) throws {
        let temporary = path + ".new"
        let file = try OwnedDescriptor.open(temporary, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o644)
        var text = "\(pid)"
        try text.withUTF8 { bytes in _ = try check("write", temporary, write(file.raw, bytes.baseAddress, bytes.count))
        }
        try check("rename", path, rename(temporary, path))
    }
}
