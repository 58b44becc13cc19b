// Generated from sandbox.proto by scripts/protoc-gen-ttrpc-swift (make protos). Do not edit.

public import TTRPC

/// What a server of `containerd.runtime.sandbox.v1.Sandbox` implements. A method that throws a `TTRPCError` answers its code;
/// see `TTRPCError.init(answering:)` for other errors.
public protocol SandboxService: Sendable {
    func createSandbox(_ request: SandboxAPICreateSandboxRequest, context: TTRPCContext) async throws -> SandboxAPICreateSandboxResponse
    func startSandbox(_ request: SandboxAPIStartSandboxRequest, context: TTRPCContext) async throws -> SandboxAPIStartSandboxResponse
    func platform(_ request: SandboxAPIPlatformRequest, context: TTRPCContext) async throws -> SandboxAPIPlatformResponse
    func stopSandbox(_ request: SandboxAPIStopSandboxRequest, context: TTRPCContext) async throws -> SandboxAPIStopSandboxResponse
    /// Answers when the sandbox has ended.
    func waitSandbox(_ request: SandboxAPIWaitSandboxRequest, context: TTRPCContext) async throws -> SandboxAPIWaitSandboxResponse
    func sandboxStatus(_ request: SandboxAPISandboxStatusRequest, context: TTRPCContext) async throws -> SandboxAPISandboxStatusResponse
    func pingSandbox(_ request: SandboxAPIPingRequest, context: TTRPCContext) async throws -> SandboxAPIPingResponse
    /// Ends the shim.
    func shutdownSandbox(_ request: SandboxAPIShutdownSandboxRequest, context: TTRPCContext) async throws -> SandboxAPIShutdownSandboxResponse
    func sandboxMetrics(_ request: SandboxAPISandboxMetricsRequest, context: TTRPCContext) async throws -> SandboxAPISandboxMetricsResponse
}

extension TTRPCServiceDescription {
    /// `containerd.runtime.sandbox.v1.Sandbox`, answered by `service`; for `TTRPCServer`.
    public static func sandbox(_ service: some SandboxService) -> TTRPCServiceDescription {
        TTRPCServiceDescription(
            "containerd.runtime.sandbox.v1.Sandbox",
            methods: [
                "CreateSandbox": .unary { try await service.createSandbox($0, context: $1) },
                "StartSandbox": .unary { try await service.startSandbox($0, context: $1) },
                "Platform": .unary { try await service.platform($0, context: $1) },
                "StopSandbox": .unary { try await service.stopSandbox($0, context: $1) },
                "WaitSandbox": .unary { try await service.waitSandbox($0, context: $1) },
                "SandboxStatus": .unary { try await service.sandboxStatus($0, context: $1) },
                "PingSandbox": .unary { try await service.pingSandbox($0, context: $1) },
                "ShutdownSandbox": .unary { try await service.shutdownSandbox($0, context: $1) },
                "SandboxMetrics": .unary { try await service.sandboxMetrics($0, context: $1) },
            ])
    }
}

/// Calls `containerd.runtime.sandbox.v1.Sandbox`. Every call has a deadline, `timeout` from now.
public struct SandboxServiceClient: Sendable {
    /// The connection of the calls.
    public let client: TTRPCClient

    public init(_ client: TTRPCClient) {
        self.client = client
    }

    public func createSandbox(
        _ request: SandboxAPICreateSandboxRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> SandboxAPICreateSandboxResponse {
        try await client.call(Self.service, "CreateSandbox", request, metadata: metadata, timeout: timeout)
    }

    public func startSandbox(
        _ request: SandboxAPIStartSandboxRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> SandboxAPIStartSandboxResponse {
        try await client.call(Self.service, "StartSandbox", request, metadata: metadata, timeout: timeout)
    }

    public func platform(
        _ request: SandboxAPIPlatformRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> SandboxAPIPlatformResponse {
        try await client.call(Self.service, "Platform", request, metadata: metadata, timeout: timeout)
    }

    public func stopSandbox(
        _ request: SandboxAPIStopSandboxRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> SandboxAPIStopSandboxResponse {
        try await client.call(Self.service, "StopSandbox", request, metadata: metadata, timeout: timeout)
    }

    /// Answers when the sandbox has ended.
    public func waitSandbox(
        _ request: SandboxAPIWaitSandboxRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> SandboxAPIWaitSandboxResponse {
        try await client.call(Self.service, "WaitSandbox", request, metadata: metadata, timeout: timeout)
    }

    public func sandboxStatus(
        _ request: SandboxAPISandboxStatusRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> SandboxAPISandboxStatusResponse {
        try await client.call(Self.service, "SandboxStatus", request, metadata: metadata, timeout: timeout)
    }

    public func pingSandbox(
        _ request: SandboxAPIPingRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> SandboxAPIPingResponse {
        try await client.call(Self.service, "PingSandbox", request, metadata: metadata, timeout: timeout)
    }

    /// Ends the shim.
    public func shutdownSandbox(
        _ request: SandboxAPIShutdownSandboxRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> SandboxAPIShutdownSandboxResponse {
        try await client.call(Self.service, "ShutdownSandbox", request, metadata: metadata, timeout: timeout)
    }

    public func sandboxMetrics(
        _ request: SandboxAPISandboxMetricsRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> SandboxAPISandboxMetricsResponse {
        try await client.call(Self.service, "SandboxMetrics", request, metadata: metadata, timeout: timeout)
    }

    private static let service = "containerd.runtime.sandbox.v1.Sandbox"
}
