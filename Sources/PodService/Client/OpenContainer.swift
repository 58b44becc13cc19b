import FoundationEssentials
import Glibc
import LinuxSystem
import Sandbox
import TTRPC
import TaskAPI

/// What a request can end with beside the sandbox's errors.
enum CommandError: Error, CustomStringConvertible {
    /// The pod's server has gone.
    case connectionLost(String)
    /// The virtual machine has ended.
    case aborted(String)

    var description: String {
        switch self {
        case .connectionLost(let message): "the pod's server is gone: \(message)"
        case .aborted(let message): message
        }
    }
}

/// Runs a command's requests; their errors become the sandbox's, without the codes of the wire.
func asking<R: Sendable>(_ body: () async throws -> R) async throws -> R {
    do { return try await body() } catch let error as TTRPCError {
        switch error.code {
        case .unimplemented, .invalidArgument: throw SandboxError.invalid(error.message)
        case .failedPrecondition: throw SandboxError.wrongState(error.message)
        case .unavailable: throw CommandError.connectionLost(error.message)
        case .aborted: throw CommandError.aborted(error.message)
        default: throw SandboxError.failed(error.message)
        }
    }
}

/// A container of the command line that exists, and the connection to its pod's server.
struct OpenContainer: Sendable {
    let record: ContainerRecord
    /// nil: the server is dead, and the container with it.
    let task: TaskServiceClient?
    let inspection: InspectionServiceClient?

    var id: String { record.id }

    /// The container's state, in the words of the runtime specification.
    func status() async throws -> (state: ContainerStatus, pid: Int32) {
        guard let task else { return (.stopped, 0) }
        do {
            let reply = try await task.state(.with { $0.id = id }, timeout: .seconds(30))
            let pid = Int32(bitPattern: reply.pid)
            switch reply.status {
            case .created: return (pid == 0 ? .creating : .created, pid)
            case .running: return (.running, pid)
            case .paused: return (.paused, pid)
            default: return (.stopped, 0)
            }
        } catch {
            switch error.code {
            // The pod has ended, or the server this moment.
            case .notFound, .unavailable: return (.stopped, 0)
            default: throw error
            }
        }
    }

    /// The server, for requests to a container that must not be stopped.
    func server() throws -> TaskServiceClient {
        guard let task else { throw SandboxError.wrongState("container \(id) is not running") }
        return task
    }
}

/// The status of a container, as the runtime specification names it (runtime.md, "State").
public enum ContainerStatus: String, Codable, Sendable {
    case creating, created, running, paused, stopped
}

extension Runtime {
    /// A container by its id.
    ///
    /// - Throws: `SandboxError.notFound`.
    func open(_ id: String) async throws -> OpenContainer {
        guard let record = records.read(id) else {
            if records.isTaken(id) { throw SandboxError.wrongState("container \(id) is being created") }
            throw SandboxError.notFound("container \(id)")
        }
        guard !record.podDirectory.isAbandoned(), let client = try? await TTRPCClient(unixPath: record.socket) else {
            return OpenContainer(record: record, task: nil, inspection: nil)
        }
        return OpenContainer(
            record: record, task: TaskServiceClient(client), inspection: InspectionServiceClient(client))
    }

    /// Forgets a container whose pod has died, and clears away what that has left: its id can be used again. One that `run --keep` has
    /// left keeps its id.
    func forgetDead(_ id: String) throws {
        if let record = records.read(id) {
            guard record.isKept != true, record.podDirectory.isAbandoned() || !record.podDirectory.exists
            else { return }
            record.podDirectory.sweep()
            records.remove(id)
        } else if records.isAbandoned(id) {
            try forgetUnfinished(id)
        }
    }

    /// Forgets a container whose creation has died before its record was written.
    func forgetUnfinished(_ id: String) throws {
        records.remove(id)
        try PodList.cleanUnfinished(root: root)
    }
}
