import Glibc
import LinuxSystem
import Logging
import OCISpec
import Sandbox
import SwiftProtobuf
import TTRPC
import TaskAPI

/// containerd's Task service for one pod: wire types in, the pod's calls, wire types out.
struct TaskAPIService: TaskService {
    let pod: Pod
    let environment: PodEnvironment
    /// What commands have handed in.
    let handed: HandedProcesses

    init(_ pod: Pod, _ environment: PodEnvironment, _ handed: HandedProcesses) {
        self.pod = pod
        self.environment = environment
        self.handed = handed
    }

    private func source(
        _ stdin: String, _ stdout: String, _ stderr: String, _ context: TTRPCContext
    ) throws -> StreamSource {
        if var process = try handed.take(stdin) {
            process.keepsLineFeeds = context.metadata[TerminalSession.lineFeedsKey] != nil
            return .handed(process)
        }
        return .named(StreamNames(stdin: stdin, stdout: stdout, stderr: stderr))
    }

    // MARK: Life

    func create(_ request: TaskCreateTaskRequest, context: TTRPCContext) async throws -> TaskCreateTaskResponse {
        try await answering(failure: "OCI runtime create failed") {
            let bundle = try await onThread("bundle") { try Bundle(directory: request.bundle) }
            let configuration = try await environment.configuration(
                options: request.options, annotations: bundle.spec.annotations)
            let pid = try await pod.create(
                ContainerRequest(
                    id: request.id, bundle: bundle, rootfs: request.rootfs.map(RootMount.init),
                    streams: try source(request.stdin, request.stdout, request.stderr, context),
                    checkpoint: request.checkpoint.isEmpty ? nil : request.checkpoint,
                    configuration: configuration))
            return .with { $0.pid = pid }
        }
    }

    func start(_ request: TaskStartRequest, context: TTRPCContext) async throws -> TaskStartResponse {
        try await answering(failure: "OCI runtime \(request.execID.isEmpty ? "start" : "exec") failed") {
            let pid = try await pod.start(request.id, exec: request.execID)
            return .with { $0.pid = pid }
        }
    }

    func exec(_ request: TaskExecProcessRequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty {
        try await answering {
            var program = try JSON.decode(Process.self, from: Array(request.spec.value), file: "process")
            program.terminal = request.terminal
            try await pod.addExec(
                request.id, exec: request.execID, program, cgroup: context.metadata[Runtime.execCgroupKey] ?? "",
                streams: try source(request.stdin, request.stdout, request.stderr, context))
            return .init()
        }
    }

    func wait(_ request: TaskWaitRequest, context: TTRPCContext) async throws -> TaskWaitResponse {
        try await answering {
            let record = try await pod.wait(request.id, exec: request.execID)
            return .with {
                $0.exitStatus = record.status
                $0.exitedAt = timestamp(record.at)
            }
        }
    }

    func delete(_ request: TaskDeleteRequest, context: TTRPCContext) async throws -> TaskDeleteResponse {
        try await answering {
            let (pid, record) = try await pod.delete(request.id, exec: request.execID)
            return .with {
                $0.pid = pid
                if let record {
                    $0.exitStatus = record.status
                    $0.exitedAt = timestamp(record.at)
                }
            }
        }
    }

    func shutdown(_ request: TaskShutdownRequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty {
        await pod.shutdown()
        return .init()
    }
}

/// The one place where the sandbox's errors become gRPC codes.
///
/// - Parameter failure: stands before the error's message; runc's shim says the same, and programs look for it.
func answering<R: Sendable>(failure: String = "", _ body: () async throws -> R) async throws -> R {
    do {
        return try await body()
    } catch {
        var answer = answer(to: error)
        if !failure.isEmpty { answer.message = "\(failure): \(answer.message)" }
        throw answer
    }
}

private func answer(to error: any Error) -> TTRPCError {
    switch error {
    case let error as TTRPCError: return error
    case let error as SandboxError:
        let code: TTRPCError.Code =
            switch error {
            case .alreadyExists: .alreadyExists
            case .notFound: .notFound
            case .wrongState: .failedPrecondition
            case .invalid: .invalidArgument
            case .unsupported: .unimplemented
            case .failed: .internal
            case .machineEnded: .aborted
            }
        return TTRPCError(code, error.description)
    case let error as SpecError: return TTRPCError(.invalidArgument, error.description)
    default: return TTRPCError(.internal, "\(error)")
    }
}

extension RootMount {
    fileprivate init(_ mount: TaskMount) {
        self.init(type: mount.type, source: mount.source, target: mount.target, options: mount.options)
    }
}

/// - Parameter nanoseconds: since the epoch.
public func timestamp(_ nanoseconds: Int64) -> Google_Protobuf_Timestamp {
    .with {
        $0.seconds = nanoseconds / 1_000_000_000
        $0.nanos = Int32(nanoseconds % 1_000_000_000)
    }
}
