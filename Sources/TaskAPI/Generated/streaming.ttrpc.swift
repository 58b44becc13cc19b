// Generated from streaming.proto by scripts/protoc-gen-ttrpc-swift (make protos). Do not edit.

public import SwiftProtobuf
public import TTRPC

/// What a server of `containerd.services.streaming.v1.Streaming` implements. A method that throws a `TTRPCError` answers its code;
/// see `TTRPCError.init(answering:)` for other errors.
public protocol StreamingService: Sendable {
    /// The client's first message is a StreamInit, which the server answers with a google.protobuf.Empty.
    func stream(
        _ requests: TTRPCReceiver<Google_Protobuf_Any>, responses: TTRPCSender<Google_Protobuf_Any>, context: TTRPCContext
    ) async throws
}

extension TTRPCServiceDescription {
    /// `containerd.services.streaming.v1.Streaming`, answered by `service`; for `TTRPCServer`.
    public static func streaming(_ service: some StreamingService) -> TTRPCServiceDescription {
        TTRPCServiceDescription(
            "containerd.services.streaming.v1.Streaming",
            methods: [
                "Stream": .stream { try await service.stream($0, responses: $1, context: $2) },
            ])
    }
}

/// Calls `containerd.services.streaming.v1.Streaming`. Every call has a deadline, `timeout` from now.
public struct StreamingServiceClient: Sendable {
    /// The connection of the calls.
    public let client: TTRPCClient

    public init(_ client: TTRPCClient) {
        self.client = client
    }

    /// The client's first message is a StreamInit, which the server answers with a google.protobuf.Empty.
    public func stream(
        metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> TTRPCStream<Google_Protobuf_Any, Google_Protobuf_Any> {
        try await client.stream(Self.service, "Stream", serverStreams: true, metadata: metadata, timeout: timeout)
    }

    private static let service = "containerd.services.streaming.v1.Streaming"
}
