public import SwiftProtobuf

/// A client's call with a stream. The call is abandoned when both the stream and its responses are released.
public struct TTRPCStream<Request: Message, Response: Message>: Sendable {
    /// The server's messages. The sequence ends when the server has sent its last one.
    public let responses: TTRPCReceiver<Response>
    private let call: ClientCall

    init(_ call: ClientCall) {
        responses = TTRPCReceiver(call.stream.inbox, of: call)
        self.call = call
    }

    /// Sends a message and returns when the system has accepted it.
    public func send(_ message: Request) async throws(TTRPCError) {
        try await call.connection.send(encoded(message), on: call.stream)
    }

    /// Tells the server that no further message follows.
    public func closeSend() async throws(TTRPCError) {
        try await call.connection.send([], flags: [.remoteClosed, .noData], on: call.stream)
    }

    /// Tells the server that no further message follows, and waits for the response of a method that returns one message.
    public func finish() async throws(TTRPCError) -> Response {
        try await closeSend()
        return try await responses.only()
    }

    /// Ends the call on this side. Sending and receiving on it fail as `cancelled`.
    public func cancel() {
        call.connection.abandon(call.stream)
    }
}

/// Keeps a call in progress until it is released.
final class ClientCall: Sendable {
    let connection: ClientConnection
    let stream: StreamState
    /// Keeps the connection open.
    private let client: TTRPCClient

    init(_ client: TTRPCClient, _ connection: ClientConnection, _ stream: StreamState) {
        self.client = client
        self.connection = connection
        self.stream = stream
    }

    deinit { connection.abandon(stream) }
}
