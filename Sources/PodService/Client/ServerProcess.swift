import CLinux
import Glibc
import Hypervisor
import LinuxSystem
import Sandbox
import TTRPC
import TaskAPI

/// A pod's server that this process started, and the connection to its Task service.
struct ServerProcess: Sendable {
    let child: ChildProcess
    let task: TaskServiceClient
    let directory: StateDirectory
    /// The server ends its pod when this closes; nil: the pod outlives this process.
    private let lifeline: SharedDescriptor?

    /// Starts a server for the pod `id`, whose state directory has just been made.
    ///
    /// - Parameter isDetached: whether the pod outlives this process. The server holds none of this process's descriptors then.
    static func start(
        id: String, _ directory: StateDirectory, lock: SharedDescriptor, _ listeners: StateDirectory.Listeners,
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
            let child = try withExtendedLifetime((listeners, theirs, lock)) { try ChildProcess("pod server", command) }
            let client = try await TTRPCClient(unixPath: listeners.socket)
            return ServerProcess(
                child: child, task: TaskServiceClient(client), directory: directory,
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
        let child = child
        let end = try? await onThread("server end") { child.waitForEnd(timeout: .seconds(10)) }
        if end != .some(.exited(0)) {
            child.signal(SIGKILL)
            _ = await child.end()
            directory.sweep()
        }
    }
}
