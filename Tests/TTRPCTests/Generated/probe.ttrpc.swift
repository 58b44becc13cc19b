// Generated from probe.proto by scripts/protoc-gen-ttrpc-swift (make protos). Do not edit.

import TTRPC

/// What a server of `martlet.test.v1.Probe` implements. A method that throws a `TTRPCError` answers its code;
/// see `TTRPCError.init(answering:)` for other errors.
protocol ProbeService: Sendable {
    /// Answers what it got, with the metadata that came with it.
    func echo(_ request: ProbeItem, context: TTRPCContext) async throws -> ProbeItem
    /// Fails with the code `number` and the message `text`.
    func fail(_ request: ProbeItem, context: TTRPCContext) async throws -> ProbeItem
    /// Takes `number` milliseconds.
    func sleep(_ request: ProbeItem, context: TTRPCContext) async throws -> ProbeItem
    /// Answers `number` items.
    func count(
        _ request: ProbeItem, responses: TTRPCSender<ProbeItem>, context: TTRPCContext
    ) async throws
    /// Answers the sum of the numbers.
    func sum(_ requests: TTRPCReceiver<ProbeItem>, context: TTRPCContext) async throws -> ProbeItem
    /// Answers each item as it comes.
    func chat(
        _ requests: TTRPCReceiver<ProbeItem>, responses: TTRPCSender<ProbeItem>, context: TTRPCContext
    ) async throws
}

extension TTRPCServiceDescription {
    /// `martlet.test.v1.Probe`, answered by `service`; for `TTRPCServer`.
    static func probe(_ service: some ProbeService) -> TTRPCServiceDescription {
        TTRPCServiceDescription(
            "martlet.test.v1.Probe",
            methods: [
                "Echo": .unary { try await service.echo($0, context: $1) },
                "Fail": .unary { try await service.fail($0, context: $1) },
                "Sleep": .unary { try await service.sleep($0, context: $1) },
                "Count": .serverStream { try await service.count($0, responses: $1, context: $2) },
                "Sum": .clientStream { try await service.sum($0, context: $1) },
                "Chat": .stream { try await service.chat($0, responses: $1, context: $2) },
            ])
    }
}

/// Calls `martlet.test.v1.Probe`. Every call has a deadline, `timeout` from now.
struct ProbeServiceClient: Sendable {
    /// The connection of the calls.
    let client: TTRPCClient

    init(_ client: TTRPCClient) {
        self.client = client
    }

    /// Answers what it got, with the metadata that came with it.
    func echo(
        _ request: ProbeItem, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> ProbeItem {
        try await client.call(Self.service, "Echo", request, metadata: metadata, timeout: timeout)
    }

    /// Fails with the code `number` and the message `text`.
    func fail(
        _ request: ProbeItem, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> ProbeItem {
        try await client.call(Self.service, "Fail", request, metadata: metadata, timeout: timeout)
    }

    /// Takes `number` milliseconds.
    func sleep(
        _ request: ProbeItem, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> ProbeItem {
        try await client.call(Self.service, "Sleep", request, metadata: metadata, timeout: timeout)
    }

    /// Answers `number` items.
    func count(
        _ request: ProbeItem, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> TTRPCStream<ProbeItem, ProbeItem> {
        try await client.stream(Self.service, "Count", sending: request, metadata: metadata, timeout: timeout)
    }

    /// Answers the sum of the numbers.
    func sum(
        metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> TTRPCStream<ProbeItem, ProbeItem> {
        try await client.stream(Self.service, "Sum", serverStreams: false, metadata: metadata, timeout: timeout)
    }

    /// Answers each item as it comes.
    func chat(
        metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> TTRPCStream<ProbeItem, ProbeItem> {
        try await client.stream(Self.service, "Chat", serverStreams: true, metadata: metadata, timeout: timeout)
    }

    private static let service = "martlet.test.v1.Probe"
}
