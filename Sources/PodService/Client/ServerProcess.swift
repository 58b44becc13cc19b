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
    /// The server ends its pod when this closes.
    private let lifeline: SharedDescriptor

    /// Starts a server for the pod `id`, whose state directory is made here and whose first process has these streams.
    static func start(
        id: String, root: String, configurationFile: String?, output: LogOutput,
        stdio: [SharedDescriptor]
    ) async throws -> ServerProcess {
        let directory = StateDirectory(root: root, id: id)
        let lock = try directory.create()
        do throws(any Error) {
            let (socket, listener) = try directory.listen(below: root)
            let (lifeline, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
            var arguments = ["pod-server", id, "--root", root] + output.arguments
            if let configurationFile { arguments += ["--config", configurationFile] }
            let environment: [String] = ["PATH", "MARTLET_GUEST"].compactMap { (name: String) -> String? in
                getenv(name).map { "\(name)=\(String(cString: $0))" }
            }
            let descriptors = [-1, STDERR_FILENO, STDERR_FILENO, listener.raw, theirs.raw, lock.raw] + stdio.map(\.raw)
            let command = ChildProcess.Command(
                executable: try Programs.own("martlet"), arguments: arguments, environment: environment,
                descriptors: descriptors, newSession: true)
            let child = try ChildProcess("pod server", command)
            let client = try await TTRPCClient(unixPath: socket)
            return ServerProcess(
                child: child, task: TaskServiceClient(client), directory: directory, lifeline: lifeline)
        } catch {
            directory.sweep()
            throw error
        }
    }

    /// Ends the server and the pod. What a server leaves that died is cleared away.
    func finish() async {
        _ = try? await task.shutdown(.init(), timeout: .seconds(10))
        shutdown(lifeline.raw, Int32(SHUT_RDWR))
        let child = child
        let end = try? await onThread("server end") { child.waitForEnd(timeout: .seconds(10)) }
        if end != .some(.exited(0)) {
            child.signal(SIGKILL)
            _ = await child.end()
            directory.sweep()
        }
    }
}
