// Generated from forward.proto by scripts/protoc-gen-ttrpc-swift (make protos). Do not edit.

public import SwiftProtobuf
public import TTRPC

/// What a server of `containerd.services.events.ttrpc.v1.Events` implements. A method that throws a `TTRPCError` answers its code;
/// see `TTRPCError.init(answering:)` for other errors.
public protocol EventsService: Sendable {
    func forward(_ request: EventForwardRequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty
}

extension TTRPCServiceDescription {
    /// `containerd.services.events.ttrpc.v1.Events`, answered by `service`; for `TTRPCServer`.
    public static func events(_ service: some EventsService) -> TTRPCServiceDescription {
        TTRPCServiceDescription(
            "containerd.services.events.ttrpc.v1.Events",
            methods: [
                "Forward": .unary { try await service.forward($0, context: $1) },
            ])
    }
}

/// Calls `containerd.services.events.ttrpc.v1.Events`. Every call has a deadline, `timeout` from now.
public struct EventsServiceClient: Sendable {
    /// The connection of the calls.
    public let client: TTRPCClient

    public init(_ client: TTRPCClient) {
        self.client = client
    }

    public func forward(
        _ request: EventForwardRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> Google_Protobuf_Empty {
        try await client.call(Self.service, "Forward", request, metadata: metadata, timeout: timeout)
    }

    private static let service = "containerd.services.events.ttrpc.v1.Events"
}
