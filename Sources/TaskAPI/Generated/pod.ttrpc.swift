// Generated from pod.proto by scripts/protoc-gen-ttrpc-swift (make protos). Do not edit.

public import TTRPC

/// What a server of `martlet.pod.v1.Inspection` implements. A method that throws a `TTRPCError` answers its code;
/// see `TTRPCError.init(answering:)` for other errors.
public protocol InspectionService: Sendable {
    func processes(_ request: PodProcessesRequest, context: TTRPCContext) async throws -> PodProcessesResponse
    func console(_ request: PodConsoleRequest, context: TTRPCContext) async throws -> PodConsoleResponse
    /// What has happened to the pod's containers, from a number on; waits for it, half a minute at most.
    func events(_ request: PodEventsRequest, context: TTRPCContext) async throws -> PodEventsResponse
    /// The spans of a trace that the server has kept for whoever began it; they are forgotten then.
    func spans(_ request: PodSpansRequest, context: TTRPCContext) async throws -> PodSpansResponse
    /// Starts a process in the machine itself, in no container. The process on the host that was handed in ends as it does.
    func startInMachine(_ request: PodStartInMachineRequest, context: TTRPCContext) async throws -> PodStartInMachineResponse
    func resizeInMachine(_ request: PodResizeInMachineRequest, context: TTRPCContext) async throws -> PodResizeInMachineResponse
    /// Copies files out of a container or into it, as a tar archive. Answers when that is done.
    func copyFiles(_ request: PodCopyFilesRequest, context: TTRPCContext) async throws -> PodCopyFilesResponse
    /// Writes the pod to a directory. Answers when that is done.
    func checkpoint(_ request: PodCheckpointRequest, context: TTRPCContext) async throws -> PodCheckpointResponse
    /// Says what a pod that has no container yet goes on from. Its containers are created by the Task service then, each with this checkpoint,
    /// the first one first.
    func prepareRestore(_ request: PodPrepareRestoreRequest, context: TTRPCContext) async throws -> PodPrepareRestoreResponse
    /// Has the file systems on the pod's disks stand still until ThawDisks, or for a time.
    func freezeDisks(_ request: PodFreezeDisksRequest, context: TTRPCContext) async throws -> PodFreezeDisksResponse
    func thawDisks(_ request: PodThawDisksRequest, context: TTRPCContext) async throws -> PodThawDisksResponse
}

extension TTRPCServiceDescription {
    /// `martlet.pod.v1.Inspection`, answered by `service`; for `TTRPCServer`.
    public static func inspection(_ service: some InspectionService) -> TTRPCServiceDescription {
        TTRPCServiceDescription(
            "martlet.pod.v1.Inspection",
            methods: [
                "Processes": .unary { try await service.processes($0, context: $1) },
                "Console": .unary { try await service.console($0, context: $1) },
                "Events": .unary { try await service.events($0, context: $1) },
                "Spans": .unary { try await service.spans($0, context: $1) },
                "StartInMachine": .unary { try await service.startInMachine($0, context: $1) },
                "ResizeInMachine": .unary { try await service.resizeInMachine($0, context: $1) },
                "CopyFiles": .unary { try await service.copyFiles($0, context: $1) },
                "Checkpoint": .unary { try await service.checkpoint($0, context: $1) },
                "PrepareRestore": .unary { try await service.prepareRestore($0, context: $1) },
                "FreezeDisks": .unary { try await service.freezeDisks($0, context: $1) },
                "ThawDisks": .unary { try await service.thawDisks($0, context: $1) },
            ])
    }
}

/// Calls `martlet.pod.v1.Inspection`. Every call has a deadline, `timeout` from now.
public struct InspectionServiceClient: Sendable {
    /// The connection of the calls.
    public let client: TTRPCClient

    public init(_ client: TTRPCClient) {
        self.client = client
    }

    public func processes(
        _ request: PodProcessesRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> PodProcessesResponse {
        try await client.call(Self.service, "Processes", request, metadata: metadata, timeout: timeout)
    }

    public func console(
        _ request: PodConsoleRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> PodConsoleResponse {
        try await client.call(Self.service, "Console", request, metadata: metadata, timeout: timeout)
    }

    /// What has happened to the pod's containers, from a number on; waits for it, half a minute at most.
    public func events(
        _ request: PodEventsRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> PodEventsResponse {
        try await client.call(Self.service, "Events", request, metadata: metadata, timeout: timeout)
    }

    /// The spans of a trace that the server has kept for whoever began it; they are forgotten then.
    public func spans(
        _ request: PodSpansRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> PodSpansResponse {
        try await client.call(Self.service, "Spans", request, metadata: metadata, timeout: timeout)
    }

    /// Starts a process in the machine itself, in no container. The process on the host that was handed in ends as it does.
    public func startInMachine(
        _ request: PodStartInMachineRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> PodStartInMachineResponse {
        try await client.call(Self.service, "StartInMachine", request, metadata: metadata, timeout: timeout)
    }

    public func resizeInMachine(
        _ request: PodResizeInMachineRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> PodResizeInMachineResponse {
        try await client.call(Self.service, "ResizeInMachine", request, metadata: metadata, timeout: timeout)
    }

    /// Copies files out of a container or into it, as a tar archive. Answers when that is done.
    public func copyFiles(
        _ request: PodCopyFilesRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> PodCopyFilesResponse {
        try await client.call(Self.service, "CopyFiles", request, metadata: metadata, timeout: timeout)
    }

    /// Writes the pod to a directory. Answers when that is done.
    public func checkpoint(
        _ request: PodCheckpointRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> PodCheckpointResponse {
        try await client.call(Self.service, "Checkpoint", request, metadata: metadata, timeout: timeout)
    }

    /// Says what a pod that has no container yet goes on from. Its containers are created by the Task service then, each with this checkpoint,
    /// the first one first.
    public func prepareRestore(
        _ request: PodPrepareRestoreRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> PodPrepareRestoreResponse {
        try await client.call(Self.service, "PrepareRestore", request, metadata: metadata, timeout: timeout)
    }

    /// Has the file systems on the pod's disks stand still until ThawDisks, or for a time.
    public func freezeDisks(
        _ request: PodFreezeDisksRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> PodFreezeDisksResponse {
        try await client.call(Self.service, "FreezeDisks", request, metadata: metadata, timeout: timeout)
    }

    public func thawDisks(
        _ request: PodThawDisksRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> PodThawDisksResponse {
        try await client.call(Self.service, "ThawDisks", request, metadata: metadata, timeout: timeout)
    }

    private static let service = "martlet.pod.v1.Inspection"
}
