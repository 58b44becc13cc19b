import NIOCore

/// The client's end of a connection.
final class ClientConnection: Connection, @unchecked Sendable {
    private var nextID: UInt32 = 1
    private let peer: TTRPCClient.Peer
    private let onClose: @Sendable (TTRPCError) -> Void

    init(_ channel: any Channel, peer: TTRPCClient.Peer, onClose: @escaping @Sendable (TTRPCError) -> Void) {
        self.peer = peer
        self.onClose = onClose
        super.init(channel)
    }

    /// Sends the request that starts `stream`, and fails it after `timeout`. May be called from any thread.
    func open(_ stream: StreamState, _ request: [UInt8], flags: FrameFlags, timeout: TimeAmount?) {
        onLoop { self.begin(stream, request, flags, timeout) }
    }

    /// Drops a stream that no one waits for. ttrpc has no message that tells the server. May be called from any thread.
    func abandon(_ stream: StreamState) {
        onLoop {
            stream.abandoned = true
            self.finish(stream, TTRPCError(.cancelled, "the call was cancelled"))
        }
    }

    private func begin(_ stream: StreamState, _ request: [UInt8], _ flags: FrameFlags, _ timeout: TimeAmount?) {
        if stream.abandoned { return }
        if let failure { return finish(stream, failure) }
        if nextID == UInt32.max {
            return close(TTRPCError(.unavailable, "the connection has used all its stream numbers"))
        }
        stream.id = nextID
        nextID += 2
        streams[stream.id] = stream
        if let timeout {
            stream.timer = channel.eventLoop.scheduleTask(in: timeout) {
                self.finish(stream, TTRPCError(.deadlineExceeded, "no answer within \(Duration(timeout))"))
            }
        }
        write(.request, stream: stream.id, flags: flags, request)
    }

    override func ended(_ failure: TTRPCError) {
        if wasActive { onClose(failure) }
    }

    override func receivedOversized(_ header: FrameHeader) {
        guard let stream = streams[header.stream] else { return }
        finish(stream, Self.tooLong(Int(header.length)))
    }

    // Frames of abandoned calls and of unknown types are ignored.
    override func received(_ frame: Frame) {
        guard let stream = streams[frame.header.stream] else { return }
        switch FrameType(rawValue: frame.header.type) {
        case .response: respond(stream, frame.payload)
        case .data: receive(stream, frame)
        case .request, nil: break
        }
    }

    private func respond(_ stream: StreamState, _ payload: [UInt8]) {
        guard let response = try? WireResponse(serializedBytes: payload) else {
            return finish(stream, TTRPCError(.internal, "the server's response can't be decoded"))
        }
        if let failure = TTRPCError(response.status) {
            return finish(stream, peer == .guest ? TTRPCError(ofGuest: failure) : failure)
        }
        // A server may end a stream that it has sent data on with an empty response.
        if !stream.streamsIn || !response.payload.isEmpty { stream.inbox.put([UInt8](response.payload)) }
        finish(stream, nil)
    }

    private func receive(_ stream: StreamState, _ frame: Frame) {
        guard stream.streamsIn else {
            return finish(stream, TTRPCError(.internal, "the server sent data on a call that has one response"))
        }
        if !frame.header.flags.contains(.noData) { deliver(frame.payload, to: stream) }
        // The server closes last, so the stream has ended.
        if frame.header.flags.contains(.remoteClosed) { finish(stream, nil) }
    }
}
