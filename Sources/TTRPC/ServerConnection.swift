import NIOCore

/// The server's end of a connection: runs a task for each request.
final class ServerConnection: Connection, @unchecked Sendable {
    /// The largest number of requests in progress on one connection, those with an unsent response included.
    static let mostRequests = 1024

    private let services: [String: TTRPCServiceDescription]
    private let onEnd: @Sendable (ServerConnection) -> Void
    private var lastID: UInt32 = 0
    private var requests = 0
    private var draining = false

    init(
        _ channel: any Channel, _ services: [String: TTRPCServiceDescription],
        onEnd: @escaping @Sendable (ServerConnection) -> Void
    ) {
        self.services = services
        self.onEnd = onEnd
        super.init(channel)
    }

    /// Closes the connection as soon as no request is in progress. May be called from any thread.
    func drain() {
        onLoop {
            self.draining = true
            self.closeIfDrained()
        }
    }

    private func closeIfDrained() {
        if draining, requests == 0 { close(TTRPCError(.unavailable, "the server is shutting down")) }
    }

    /// While a client does not take its responses, its requests are not read.
    override var mayRead: Bool { super.mayRead && channel.isWritable }

    override func ended(_ failure: TTRPCError) {
        onEnd(self)
    }

    override func receivedOversized(_ header: FrameHeader) {
        reject(header.stream, Self.tooLong(Int(header.length)))
    }

    override func received(_ frame: Frame) {
        let id = frame.header.stream
        guard id & 1 == 1 else {
            return reject(id, TTRPCError(.invalidArgument, "stream numbers of a client are odd"))
        }
        switch FrameType(rawValue: frame.header.type) {
        case .request: request(frame)
        case .data: data(frame)
        // Clients send no responses. Other types may get a meaning in a later protocol.
        case .response, nil: break
        }
    }

    /// Responds to stream `id` with an error, and ends the request on it, if any.
    private func reject(_ id: UInt32, _ error: TTRPCError) {
        if let stream = streams[id] { return fail(stream, error) }
        write(.response, stream: id, Self.response(error))
    }

    override func fail(_ stream: StreamState, _ failure: TTRPCError) {
        finish(stream, failure)
        write(.response, stream: stream.id, Self.response(failure))
    }

    private func data(_ frame: Frame) {
        let id = frame.header.stream
        guard let stream = streams[id] else {
            return reject(id, TTRPCError(.invalidArgument, "stream \(id) is not active"))
        }
        if stream.remoteClosed {
            return reject(id, TTRPCError(.invalidArgument, "data on stream \(id), which its sender has closed"))
        }
        if !frame.header.flags.contains(.noData) { deliver(frame.payload, to: stream) }
        if frame.header.flags.contains(.remoteClosed) {
            stream.remoteClosed = true
            stream.inbox.end()
        }
    }

    private func request(_ frame: Frame) {
        let id = frame.header.stream
        if id <= lastID {
            return reject(id, TTRPCError(.invalidArgument, "stream number \(id) is not greater than the last"))
        }
        lastID = id
        guard let request = try? WireRequest(serializedBytes: frame.payload) else {
            return reject(id, TTRPCError(.invalidArgument, "the request can't be decoded"))
        }
        guard let service = services[request.service] else {
            return reject(id, TTRPCError(.unimplemented, "service \(request.service)"))
        }
        guard let method = service.methods[request.method] else {
            return reject(id, TTRPCError(.unimplemented, "method \(request.method) of \(request.service)"))
        }
        if draining { return reject(id, TTRPCError(.unavailable, "the server is shutting down")) }
        if requests >= Self.mostRequests {
            return reject(id, TTRPCError(.resourceExhausted, "\(requests) requests are in progress"))
        }
        begin(id, request, method, closed: frame.header.flags.contains(.remoteClosed))
    }

    private func begin(_ id: UInt32, _ request: WireRequest, _ method: TTRPCMethod, closed: Bool) {
        let stream = StreamState(streamsIn: method.clientStreams, streamsOut: method.serverStreams)
        stream.id = id
        // A method that takes a stream gets the request's message only if there is one.
        if !method.clientStreams || !request.payload.isEmpty { stream.inbox.put([UInt8](request.payload)) }
        if !method.clientStreams || closed {
            stream.remoteClosed = true
            stream.inbox.end()
        }
        streams[id] = stream
        requests += 1
        let context = TTRPCContext(request)
        if request.timeoutNano > 0 {
            stream.timer = channel.eventLoop.scheduleTask(in: .nanoseconds(request.timeoutNano)) {
                stream.timedOut = true
                stream.task?.cancel()
            }
        }
        stream.task = Task {
            var result: Result<[UInt8]?, TTRPCError>
            do {
                result = .success(try await method.run(stream.inbox, ServerStream(self, stream), context))
            } catch {
                result = .failure(TTRPCError(answering: error))
            }
            self.onLoop { [result] in self.answer(stream, result) }
        }
    }

    private func answer(_ stream: StreamState, _ result: Result<[UInt8]?, TTRPCError>) {
        guard streams[stream.id] === stream else { return requestEnded() }
        finish(stream, nil)
        let sent = channel.eventLoop.makePromise(of: Void.self)
        sent.futureResult.whenComplete { _ in self.requestEnded() }
        switch result {
        case .success(nil):
            write(.data, stream: stream.id, flags: [.remoteClosed, .noData], [], promise: sent)
        case .success(let message?):
            write(.response, stream: stream.id, Self.response(message), promise: sent)
        case .failure(let error):
            let late = stream.timedOut && error.code == .cancelled
            let answer = late ? TTRPCError(.deadlineExceeded, "the call's deadline has passed") : error
            write(.response, stream: stream.id, Self.response(answer), promise: sent)
        }
    }

    private func requestEnded() {
        requests -= 1
        closeIfDrained()
    }

    /// A response with `message`, or with an error when it is too long.
    private static func response(_ message: [UInt8]) -> [UInt8] {
        var response = WireResponse()
        // Older clients of containerd require a status.
        response.status = WireStatus()
        response.payload = .init(message)
        guard let bytes = try? encoded(response), bytes.count <= FrameHeader.longest else {
            return Self.response(tooLong(message.count))
        }
        return bytes
    }

    private static func response(_ error: TTRPCError) -> [UInt8] {
        var response = WireResponse()
        response.status = error.wire
        if let bytes = try? encoded(response), bytes.count <= FrameHeader.longest { return bytes }
        // The error's text is too long for a response: send the code only.
        response.status = WireStatus()
        response.status.code = error.code.rawValue
        return (try? encoded(response)) ?? []
    }
}

/// The sending side of a server's stream.
private struct ServerStream: FrameSending {
    let connection: ServerConnection
    let stream: StreamState

    init(_ connection: ServerConnection, _ stream: StreamState) {
        self.connection = connection
        self.stream = stream
    }

    func send(_ message: [UInt8]) async throws(TTRPCError) {
        try await connection.send(message, on: stream)
    }
}

extension TTRPCContext {
    init(_ request: WireRequest) {
        service = request.service
        method = request.method
        metadata = [:]
        metadata.entries = request.metadata.map { (key: $0.key, value: $0.value) }
        deadline = request.timeoutNano > 0 ? .now + .nanoseconds(request.timeoutNano) : nil
    }
}
