// Generated from transfer.proto by scripts/protoc-gen-ttrpc-swift (make protos). Do not edit.

public import SwiftProtobuf
public import TTRPC

/// What a server of `containerd.services.transfer.v1.Transfer` implements. A method that throws a `TTRPCError` answers its code;
/// see `TTRPCError.init(answering:)` for other errors.
public protocol TransferService: Sendable {
    /// From a containerd.types.transfer.ContainerPath to a WriteStream, or from a ReadStream to a ContainerPath.
    func transfer(_ request: TransferTransferRequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty
}

extension TTRPCServiceDescription {
    /// `containerd.services.transfer.v1.Transfer`, answered by `service`; for `TTRPCServer`.
    public static func transfer(_ service: some TransferService) -> TTRPCServiceDescription {
        TTRPCServiceDescription(
            "containerd.services.transfer.v1.Transfer",
            methods: [
                "Transfer": .unary { try await service.transfer($0, context: $1) },
            ])
    }
}

/// Calls `containerd.services.transfer.v1.Transfer`. Every call has a deadline, `timeout` from now.
public struct TransferServiceClient: Sendable {
    /// The connection of the calls.
    public let client: TTRPCClient

    public init(_ client: TTRPCClient) {
        self.client = client
    }

    /// From a containerd.types.transfer.ContainerPath to a WriteStream, or from a ReadStream to a ContainerPath.
    public func transfer(
        _ request: TransferTransferRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> Google_Protobuf_Empty {
        try await client.call(Self.service, "Transfer", request, metadata: metadata, timeout: timeout)
    }

    private static let service = "containerd.services.transfer.v1.Transfer"
}
