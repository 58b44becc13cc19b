import FuzzSupport
import OCISpec
import SwiftProtobuf
import TaskAPI

@testable import PodService
@testable import Sandbox
@testable import TTRPC

/// The Task service as far as a request is read and checked before a pod is asked.
enum TaskRequests {
    typealias Nothing = Google_Protobuf_Empty

    static let service = TTRPCServiceDescription(
        "containerd.task.v2.Task",
        methods: [
            "State": method { (request: TaskStateRequest) in _ = try ContainerID(request.id) },
            "Create": method { (request: TaskCreateTaskRequest) in
                _ = try ContainerID(request.id)
                _ = try Configuration().file(engineOptions: request.options.typeURL, request.options.value)
            },
            "Exec": method { (request: TaskExecProcessRequest) in
                let process = try JSON.decode(Process.self, from: Array(request.spec.value), file: "process")
                let problems = process.problems()
                if !problems.isEmpty { throw SpecError.invalid(file: "process", problems) }
            },
            "Update": method { (request: TaskUpdateTaskRequest) in
                _ = try JSON.decode(Linux.Resources.self, from: Array(request.resources.value), file: "resources")
            },
            "Kill": method { (request: TaskKillRequest) in _ = try ContainerID(request.id) },
            // Until the connection ends, or the request's deadline.
            "Wait": method { (_: TaskWaitRequest) in _ = try await Mailbox().receive() },
        ])

    private static func method<Request: Message>(
        _ check: @escaping @Sendable (Request) async throws -> Void
    ) -> TTRPCMethod {
        .unary { (request: Request, _) -> Nothing in
            try await answering(failure: "OCI runtime failed") { try await check(request) }
            return .init()
        }
    }

    /// A request of a method, with fields of the input, or bytes that may be none.
    static func bytes(of method: String, _ input: inout Input) -> [UInt8] {
        let id = String(decoding: input.take(Int(input.byte() % 24)), as: UTF8.self)
        let value = input.take(Int(input.byte()))
        let request: any Message
        switch method {
        case "State": request = TaskStateRequest.with { $0.id = id }
        case "Create":
            request = TaskCreateTaskRequest.with {
                $0.id = id
                $0.options.typeURL = input.pick(["", "containerd.runc.v1.Options", "runtimeoptions.v1.Options", id])
                $0.options.value = .init(value)
            }
        case "Exec":
            request = TaskExecProcessRequest.with {
                $0.id = id
                $0.spec.value = .init(value)
            }
        case "Update":
            request = TaskUpdateTaskRequest.with {
                $0.id = id
                $0.resources.value = .init(value)
            }
        default: return value
        }
        return (try? request.serializedBytes()) ?? []
    }
}
