import NIOCore

/// The state of one call. Only `inbox` is thread-safe; the connection's event loop owns the rest.
final class StreamState: @unchecked Sendable {
    let inbox = Mailbox()
    /// Whether the other side sends data frames.
    let streamsIn: Bool
    var id: UInt32 = 0
    /// This side sends nothing more, or never does.
    var localClosed: Bool
    var remoteClosed = false
    var timer: Scheduled<Void>?
    var isFull = false
    /// The caller no longer waits for the call.
    var abandoned = false
    /// The results of sends that the system has not accepted yet, oldest first.
    var sending = CircularBuffer<Mailbox>(initialCapacity: 0)
    /// The task of the server's method, and whether its deadline has passed.
    var task: Task<Void, Never>?
    var timedOut = false

    init(streamsIn: Bool, streamsOut: Bool) {
        self.streamsIn = streamsIn
        localClosed = !streamsOut
    }
}

/// What both ends of a connection share: frames, streams, and when to stop reading. It is the handler of its channel. Everything
/// but `send` and `onLoop` runs on the channel's event loop.
class Connection: ChannelDuplexHandler, @unchecked Sendable {
    typealias InboundIn = ByteBuffer
    typealias OutboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    let channel: any Channel
    var streams: [UInt32: StreamState] = [:]
    /// Why the connection has ended; nil while it works.
    private(set) var failure: TTRPCError?
    /// Whether the connection was ever established.
    private(set) var wasActive = false
    private var parser = FrameParser()
    private var lastError: (any Error)?
    private var context: ChannelHandlerContext?
    private var fullStreams = 0
    private var readWanted = false

    init(_ channel: any Channel) {
        self.channel = channel
    }

    // Overridden by the two ends.
    func received(_ frame: Frame) {}
    func receivedOversized(_ header: FrameHeader) {}
    func ended(_ failure: TTRPCError) {}
    /// Ends a stream after an error of the other side or of the receiver.
    func fail(_ stream: StreamState, _ failure: TTRPCError) { finish(stream, failure) }
    /// Whether to read from the connection. The server overrides it, to stop reading while the client does not take its replies.
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

    /// Removes a stream. Its receiver gets `failure` or the end, and its senders get an error.
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

    /// Sends a data frame and waits until the system has accepted it. May be called from any thread.
    func send(_ message: [UInt8], flags: FrameFlags = [], on stream: StreamState) async throws(TTRPCError) {
        if message.count > FrameHeader.longest { throw Self.tooLong(message.count) }
        let sent = Mailbox()
        onLoop { self.send(message, flags: flags, on: stream, answer: sent) }
        _ = try await sent.receive()
    }

    private func send(_ message: [UInt8], flags: FrameFlags, on stream: StreamState, answer: Mailbox) {
        if let failure { return answer.end(failure) }
        if stream.localClosed || streams[stream.id] !== stream { return answer.end(Self.streamEnded) }
        if flags.contains(.remoteClosed) { stream.localClosed = true }
        stream.sending.append(answer)
        let promise = channel.eventLoop.makePromise(of: Void.self)
        promise.futureResult.whenComplete { result in
            // Writes complete in order. A stream that ended early has completed all of its sends.
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
        // A channel that never became active gets no channelInactive.
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

    /// Delivers a message to a stream. When too many messages wait in a stream, the connection stops reading, for at most a second.
    /// After that the stream fails, so that it can't block the others for good.
    func deliver(_ message: [UInt8], to stream: StreamState) {
        guard stream.inbox.put(message) >= Mailbox.highMark, !stream.isFull else { return }
        setFull(stream, true)
        let timeout = channel.eventLoop.scheduleTask(in: .seconds(1)) {
            guard stream.isFull else { return }
            self.fail(stream, TTRPCError(.resourceExhausted, "the receiver of stream \(stream.id) did not keep up"))
        }
        stream.inbox.whenDrained {
            timeout.cancel()
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
