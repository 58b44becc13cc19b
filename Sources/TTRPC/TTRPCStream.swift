public import SwiftProtobuf

/// A call with a stream, as its client holds it. The call is abandoned when nothing holds it or its responses.
public struct TTRPCStream<Request: Message, Response: Message>: Sendable {
    /// What the server sends. It ends when the server has sent its last message.
    public let responses: TTRPCReceiver<Response>
    private let call: ClientCall

    init(_ call: ClientCall) {
        responses = TTRPCReceiver(call.stream.inbox, of: call)
        self.call = call
    }

    /// Sends a message; returns when the system has taken it.
    public func send(_ message: Request) async throws(TTRPCError) {
        try await call.connection.send(encoded(message), on: call.stream)
    }

    /// Says that no further message comes.
    public func closeSend() async throws(TTRPCError) {
        try await call.connection.send([], flags: [.remoteClosed, .noData], on: call.stream)
    }

    /// Says that no further message comes and waits for the response, of a method that has one.
    public func finish() async throws(TTRPCError) -> Response {
        try await closeSend()
        return try await responses.only()
    }

    /// Ends the call on this side; what is received or sent on it fails as `cancelled`.
    public func cancel() {
        call.connection.abandon(call.stream)
    }
}

/// A call for as long as somebody is interested in it.
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
