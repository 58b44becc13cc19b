import CLinux
import Glibc
import Hypervisor
import LinuxSystem
import OCISpec
import Sandbox
import TTRPC
import TaskAPI

/// A pod's server that this process started, or took from the pool, and the connection to its Task service.
struct ServerProcess: Sendable {
    private let process: ServerHandle
    let task: TaskServiceClient
    let directory: StateDirectory
    /// The server ends its pod when this closes; nil: the pod outlives this process.
    private let lifeline: SharedDescriptor?

    /// Starts a server for the pod `id`, whose state directory has just been made.
    ///
    /// - Parameters:
    ///   - spec: of the pod's first container.
    ///   - isDetached: whether the pod outlives this process. The server holds none of this process's descriptors then.
    static func start(
        id: String, _ spec: Spec, _ directory: StateDirectory, lock: SharedDescriptor,
        _ listeners: StateDirectory.Listeners,
        isDetached: Bool, _ runtime: Runtime
    ) async throws -> ServerProcess {
        do throws(any Error) {
            let (lifeline, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
            var arguments = ["pod-server", id, "--root", runtime.root] + runtime.output.arguments
            if isDetached { arguments.append("--detached") }
            if let file = runtime.configurationFile { arguments += ["--config", file] }
            let environment: [String] = ["PATH", "MARTLET_GUEST"].compactMap { (name: String) -> String? in
                getenv(name).map { "\(name)=\(String(cString: $0))" }
            }
            let errors = isDetached ? -1 : STDERR_FILENO
            let command = ChildProcess.Command(
                executable: try Programs.own("martlet"), arguments: arguments, environment: environment,
                descriptors: [
                    -1, errors, errors, listeners.services.raw, isDetached ? -1 : theirs.raw, lock.raw,
                    listeners.processes.raw,
                ], newSession: true)
            let process = try withExtendedLifetime((listeners, theirs, lock)) {
                let pooled = runtime.configuration.flatMap {
                    Pool.take(command, $0, configurationFile: runtime.configurationFile) { spec }
                }
                return try pooled.map(ServerHandle.pooled) ?? .child(ChildProcess("pod server", command))
            }
            let client = try await TTRPCClient(unixPath: listeners.socket)
            return ServerProcess(
                process: process, task: TaskServiceClient(client), directory: directory,
                lifeline: isDetached ? nil : lifeline)
        } catch {
            directory.sweep()
            throw error
        }
    }

    /// Ends the server and the pod. What a server leaves that died is cleared away.
    func finish() async {
        _ = try? await task.shutdown(.init(), timeout: .seconds(10))
        if let lifeline { shutdown(lifeline.raw, Int32(SHUT_RDWR)) }
        let end = try? await onThread("server end") { [self] in waitForEnd(timeout: .seconds(10)) }
        if let end, end.isClean { return }
        _ = try? await onThread("server end") { [process] in process.kill() }
        directory.sweep()
    }

    /// How a server ended.
    struct End: CustomStringConvertible {
        /// Whether it has taken everything away.
        var isClean: Bool
        /// For messages: `exited with code 1`.
        var description: String
    }

    /// Blocks until the server ends.
    ///
    /// - Returns: nil: it runs still.
    func waitForEnd(timeout: Duration) -> End? {
        switch process {
        case .child(let child):
            child.waitForEnd(timeout: timeout).map { End(isClean: $0 == .exited(0), description: "\($0)") }
        case .pooled(let server):
            // Its parent alone learns the exit code.
            server.waitForEnd(timeout: timeout)
                ? End(isClean: !directory.exists, description: "has ended") : nil
        }
    }
}

/// The process of a pod's server.
private enum ServerHandle {
    /// A child of this process.
    case child(ChildProcess)
    case pooled(Pool.Server)

    /// Ends it, and blocks until it has ended.
    func kill() {
        switch self {
        case .child(let child):
            child.signal(SIGKILL)
            _ = child.waitForEnd()
        case .pooled(let server):
            server.kill()
            _ = server.waitForEnd(timeout: .seconds(10))
        }
    }
}
