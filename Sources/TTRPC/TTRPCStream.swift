public import SwiftProtobuf

/// A call with a stream, as its client holds it. The call is abandoned when this goes.
public final class TTRPCStream<Request: Message, Response: Message>: Sendable {
    /// What the server sends. It ends when the server has sent its last message.
    public let responses: TTRPCReceiver<Response>
    /// Keeps the connection open.
    private let client: TTRPCClient
    private let connection: ClientConnection
    private let stream: StreamState

    init(_ client: TTRPCClient, _ connection: ClientConnection, _ stream: StreamState) {
        responses = TTRPCReceiver(stream.inbox)
        self.client = client
        self.connection = connection
        self.stream = stream
    }

    deinit { connection.abandon(stream) }

    /// Sends a message; returns when the system has taken it.
    public func send(_ message: Request) async throws(TTRPCError) {
        try await connection.send(encoded(message), on: stream)
    }

    /// Says that no further message comes.
    public func closeSend() async throws(TTRPCError) {
        try await connection.send([], flags: [.remoteClosed, .noData], on: stream)
    }

    /// Says that no further message comes and waits for the response, of a method that has one.
    public func finish() async throws(TTRPCError) -> Response {
        try await closeSend()
        return try await responses.only()
    }

    /// Ends the call on this side; what is received or sent on it fails as `cancelled`.
    public func cancel() {
        connection.abandon(stream)
    }
}
