import NIOCore

/// One call. All but `inbox` belongs to the connection's event loop, which alone touches it.
final class StreamState: @unchecked Sendable {
    let inbox = Mailbox()
    /// The other side may end it with a data frame: it streams.
    let streamsIn: Bool
    var id: UInt32 = 0
    /// This side sends nothing more, or never could.
    var localClosed: Bool
    var remoteClosed = false
    var timer: Scheduled<Void>?
    var isFull = false
    /// The caller is not interested any more.
    var abandoned = false
    /// Answers of the sends that the system has not taken yet, oldest first.
    var sending = CircularBuffer<Mailbox>(initialCapacity: 0)
    /// The server's method, and whether its time ran out.
    var task: Task<Void, Never>?
    var timedOut = false

    init(streamsIn: Bool, streamsOut: Bool) {
        self.streamsIn = streamsIn
        localClosed = !streamsOut
    }
}

/// What both ends of a connection share: frames in and out, streams, and when not to read. It is the handler of its
/// channel; but for `send` and `whenOnLoop` everything runs on the channel's event loop.
class Connection: ChannelDuplexHandler, @unchecked Sendable {
    typealias InboundIn = ByteBuffer
    typealias OutboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    let channel: any Channel
    var streams: [UInt32: StreamState] = [:]
    /// Why nothing goes through this connection any more.
    private(set) var failure: TTRPCError?
    /// Whether there ever was a connection.
    private(set) var wasActive = false
    private var parser = FrameParser()
    private var lastError: (any Error)?
    private var context: ChannelHandlerContext?
    private var fullStreams = 0
    private var readWanted = false

    init(_ channel: any Channel) {
        self.channel = channel
    }

    // What the two ends do differently.
    func received(_ frame: Frame) {}
    func receivedOversized(_ header: FrameHeader) {}
    func ended(_ failure: TTRPCError) {}
    /// Ends a stream whose other side did wrong, or whose receiver did.
    func fail(_ stream: StreamState, _ failure: TTRPCError) { finish(stream, failure) }
    /// Whether the other side takes what it is sent; an end that stops reading until it does overrides it.
    var mayRead: Bool { fullStreams == 0 }

    func onLoop(_ body: @escaping @Sendable () -> Void) {
        if channel.eventLoop.inEventLoop { body() } else { channel.eventLoop.execute(body) }
    }

    /// Ends the connection and every stream on it.
    func close(_ failure: TTRPCError) {
        end(failure)
        channel.close(promise: nil)
    }

    private func end(_ failure: TTRPCError) {
        if self.failure != nil { return }
        self.failure = failure
        for stream in Array(streams.values) { finish(stream, failure) }
        ended(failure)
    }

    /// Takes a stream away: its receiver gets `failure` or the end, its senders an error.
    func finish(_ stream: StreamState, _ failure: TTRPCError?) {
        if streams[stream.id] === stream { streams[stream.id] = nil }
        stream.timer?.cancel()
        stream.timer = nil
        stream.localClosed = true
        setFull(stream, false)
        stream.inbox.end(failure)
        while let sent = stream.sending.popFirst() { sent.end(failure ?? Self.streamEnded) }
        if failure != nil { stream.task?.cancel() }
    }

    static let streamEnded = TTRPCError(.failedPrecondition, "send on a stream that has ended")
    static func tooLong(_ length: Int) -> TTRPCError {
        TTRPCError(
            .resourceExhausted, "message length \(length) exceeds the maximum message size of \(FrameHeader.longest)")
    }
}

// Sending.
extension Connection {
    func write(
        _ type: FrameType, stream: UInt32, flags: FrameFlags = [], _ payload: [UInt8],
        promise: EventLoopPromise<Void>? = nil
    ) {
        var buffer = channel.allocator.buffer(capacity: FrameHeader.size + payload.count)
        buffer.writeFrame(type, stream: stream, flags: flags, payload)
        channel.writeAndFlush(buffer, promise: promise)
    }

    /// Sends a data frame and waits until the system has taken it. From any thread.
    func send(_ message: [UInt8], flags: FrameFlags = [], on stream: StreamState) async throws(TTRPCError) {
        if message.count > FrameHeader.longest { throw Self.tooLong(message.count) }
        let sent = Mailbox()
        onLoop { self.send(message, flags: flags, on: stream, answer: sent) }
        _ = try await sent.take()
    }

    private func send(_ message: [UInt8], flags: FrameFlags, on stream: StreamState, answer: Mailbox) {
        if let failure { return answer.end(failure) }
        if stream.localClosed || streams[stream.id] !== stream { return answer.end(Self.streamEnded) }
        if flags.contains(.remoteClosed) { stream.localClosed = true }
        stream.sending.append(answer)
        let promise = channel.eventLoop.makePromise(of: Void.self)
        promise.futureResult.whenComplete { result in
            // Writes complete in order, and a stream that ended early has answered for all of them.
            guard let answer = stream.sending.popFirst() else { return }
            switch result {
            case .success: answer.end()
            case .failure(let error): answer.end(self.failure ?? TTRPCError(.unavailable, "send: \(error)"))
            }
        }
        write(.data, stream: stream.id, flags: flags, message, promise: promise)
    }
}

// Receiving.
extension Connection {
    func handlerAdded(context: ChannelHandlerContext) { self.context = context }

    func channelActive(context: ChannelHandlerContext) {
        wasActive = true
        context.fireChannelActive()
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        self.context = nil
        // A channel that never became active does not become inactive either.
        end(TTRPCError(.unavailable, "the connection could not be made"))
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        parser.append(unwrapInboundIn(data))
        while failure == nil, let event = parser.next() {
            switch event {
            case .frame(let frame): received(frame)
            case .oversized(let header): receivedOversized(header)
            }
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        lastError = error
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        let reason = lastError.map { "the connection failed: \($0)" } ?? "the other side closed the connection"
        end(TTRPCError(.unavailable, reason))
        context.fireChannelInactive()
    }

    func read(context: ChannelHandlerContext) {
        if mayRead { context.read() } else { readWanted = true }
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        readAgain()
        context.fireChannelWritabilityChanged()
    }

    private func readAgain() {
        guard readWanted, mayRead, let context else { return }
        readWanted = false
        context.read()
    }

    /// Hands a message to a stream. One that lets too many wait holds the connection up, for a second at most: then
    /// it is given up, so that it can't stall the others for good.
    func deliver(_ message: [UInt8], to stream: StreamState) {
        guard stream.inbox.put(message) >= Mailbox.highMark, !stream.isFull else { return }
        setFull(stream, true)
        let patience = channel.eventLoop.scheduleTask(in: .seconds(1)) {
            guard stream.isFull else { return }
            self.fail(stream, TTRPCError(.resourceExhausted, "the receiver of stream \(stream.id) did not keep up"))
        }
        stream.inbox.whenDrained {
            patience.cancel()
            self.onLoop { self.setFull(stream, false) }
        }
    }

    private func setFull(_ stream: StreamState, _ full: Bool) {
        if stream.isFull == full { return }
        stream.isFull = full
        fullStreams += full ? 1 : -1
        readAgain()
    }
}
