// Generated from task.proto by scripts/protoc-gen-ttrpc-swift (make protos). Do not edit.

public import SwiftProtobuf
public import TTRPC

/// What a server of `containerd.task.v2.Task` implements. A method that throws a `TTRPCError` answers its code;
/// see `TTRPCError.init(answering:)` for other errors.
public protocol TaskService: Sendable {
    func state(_ request: TaskStateRequest, context: TTRPCContext) async throws -> TaskStateResponse
    /// Sets a container up to the point before its program is executed.
    func create(_ request: TaskCreateTaskRequest, context: TTRPCContext) async throws -> TaskCreateTaskResponse
    /// Executes the program of what was created, container or exec.
    func start(_ request: TaskStartRequest, context: TTRPCContext) async throws -> TaskStartResponse
    /// Takes an ended process, and with the first one its container, away.
    func delete(_ request: TaskDeleteRequest, context: TTRPCContext) async throws -> TaskDeleteResponse
    func pids(_ request: TaskPidsRequest, context: TTRPCContext) async throws -> TaskPidsResponse
    func pause(_ request: TaskPauseRequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty
    func resume(_ request: TaskResumeRequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty
    func checkpoint(_ request: TaskCheckpointTaskRequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty
    func kill(_ request: TaskKillRequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty
    /// Sets a further process up; Start executes it.
    func exec(_ request: TaskExecProcessRequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty
    func resizePty(_ request: TaskResizePtyRequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty
    func closeIO(_ request: TaskCloseIORequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty
    func update(_ request: TaskUpdateTaskRequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty
    /// Answers when the process has ended.
    func wait(_ request: TaskWaitRequest, context: TTRPCContext) async throws -> TaskWaitResponse
    func stats(_ request: TaskStatsRequest, context: TTRPCContext) async throws -> TaskStatsResponse
    /// Facts of the shim itself.
    func connect(_ request: TaskConnectRequest, context: TTRPCContext) async throws -> TaskConnectResponse
    /// Ends the shim when it serves no container any more, or at once.
    func shutdown(_ request: TaskShutdownRequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty
}

extension TTRPCServiceDescription {
    /// `containerd.task.v2.Task`, answered by `service`; for `TTRPCServer`.
    public static func task(_ service: some TaskService) -> TTRPCServiceDescription {
        TTRPCServiceDescription(
            "containerd.task.v2.Task",
            methods: [
                "State": .unary { try await service.state($0, context: $1) },
                "Create": .unary { try await service.create($0, context: $1) },
                "Start": .unary { try await service.start($0, context: $1) },
                "Delete": .unary { try await service.delete($0, context: $1) },
                "Pids": .unary { try await service.pids($0, context: $1) },
                "Pause": .unary { try await service.pause($0, context: $1) },
                "Resume": .unary { try await service.resume($0, context: $1) },
                "Checkpoint": .unary { try await service.checkpoint($0, context: $1) },
                "Kill": .unary { try await service.kill($0, context: $1) },
                "Exec": .unary { try await service.exec($0, context: $1) },
                "ResizePty": .unary { try await service.resizePty($0, context: $1) },
                "CloseIO": .unary { try await service.closeIO($0, context: $1) },
                "Update": .unary { try await service.update($0, context: $1) },
                "Wait": .unary { try await service.wait($0, context: $1) },
                "Stats": .unary { try await service.stats($0, context: $1) },
                "Connect": .unary { try await service.connect($0, context: $1) },
                "Shutdown": .unary { try await service.shutdown($0, context: $1) },
            ])
    }
}

/// Calls `containerd.task.v2.Task`. Every call has a deadline, `timeout` from now.
public struct TaskServiceClient: Sendable {
    /// The connection of the calls.
    public let client: TTRPCClient

    public init(_ client: TTRPCClient) {
        self.client = client
    }

    public func state(
        _ request: TaskStateRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> TaskStateResponse {
        try await client.call(Self.service, "State", request, metadata: metadata, timeout: timeout)
    }

    /// Sets a container up to the point before its program is executed.
    public func create(
        _ request: TaskCreateTaskRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> TaskCreateTaskResponse {
        try await client.call(Self.service, "Create", request, metadata: metadata, timeout: timeout)
    }

    /// Executes the program of what was created, container or exec.
    public func start(
        _ request: TaskStartRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> TaskStartResponse {
        try await client.call(Self.service, "Start", request, metadata: metadata, timeout: timeout)
    }

    /// Takes an ended process, and with the first one its container, away.
    public func delete(
        _ request: TaskDeleteRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> TaskDeleteResponse {
        try await client.call(Self.service, "Delete", request, metadata: metadata, timeout: timeout)
    }

    public func pids(
        _ request: TaskPidsRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> TaskPidsResponse {
        try await client.call(Self.service, "Pids", request, metadata: metadata, timeout: timeout)
    }

    public func pause(
        _ request: TaskPauseRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> Google_Protobuf_Empty {
        try await client.call(Self.service, "Pause", request, metadata: metadata, timeout: timeout)
    }

    public func resume(
        _ request: TaskResumeRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> Google_Protobuf_Empty {
        try await client.call(Self.service, "Resume", request, metadata: metadata, timeout: timeout)
    }

    public func checkpoint(
        _ request: TaskCheckpointTaskRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> Google_Protobuf_Empty {
        try await client.call(Self.service, "Checkpoint", request, metadata: metadata, timeout: timeout)
    }

    public func kill(
        _ request: TaskKillRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> Google_Protobuf_Empty {
        try await client.call(Self.service, "Kill", request, metadata: metadata, timeout: timeout)
    }

    /// Sets a further process up; Start executes it.
    public func exec(
        _ request: TaskExecProcessRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> Google_Protobuf_Empty {
        try await client.call(Self.service, "Exec", request, metadata: metadata, timeout: timeout)
    }

    public func resizePty(
        _ request: TaskResizePtyRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> Google_Protobuf_Empty {
        try await client.call(Self.service, "ResizePty", request, metadata: metadata, timeout: timeout)
    }

    public func closeIO(
        _ request: TaskCloseIORequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> Google_Protobuf_Empty {
        try await client.call(Self.service, "CloseIO", request, metadata: metadata, timeout: timeout)
    }

    public func update(
        _ request: TaskUpdateTaskRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> Google_Protobuf_Empty {
        try await client.call(Self.service, "Update", request, metadata: metadata, timeout: timeout)
    }

    /// Answers when the process has ended.
    public func wait(
        _ request: TaskWaitRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> TaskWaitResponse {
        try await client.call(Self.service, "Wait", request, metadata: metadata, timeout: timeout)
    }

    public func stats(
        _ request: TaskStatsRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> TaskStatsResponse {
        try await client.call(Self.service, "Stats", request, metadata: metadata, timeout: timeout)
    }

    /// Facts of the shim itself.
    public func connect(
        _ request: TaskConnectRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> TaskConnectResponse {
        try await client.call(Self.service, "Connect", request, metadata: metadata, timeout: timeout)
    }

    /// Ends the shim when it serves no container any more, or at once.
    public func shutdown(
        _ request: TaskShutdownRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> Google_Protobuf_Empty {
        try await client.call(Self.service, "Shutdown", request, metadata: metadata, timeout: timeout)
    }

    private static let service = "containerd.task.v2.Task"
}
