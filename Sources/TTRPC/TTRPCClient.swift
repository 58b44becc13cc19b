public import LinuxSystem
import NIOCore
import NIOPosix
public import SwiftProtobuf
import Synchronization

/// A client on one connection. Any number of calls may be in progress. A call ends with its response, at its deadline, when the
/// calling task is cancelled (ttrpc has no message that tells the server), or with the connection.
///
/// The connection is closed when the client is released.
public final class TTRPCClient: Sendable {
    /// Whose server is at the other end.
    public enum Peer: Sendable {
        /// A process of the host.
        case host
        /// A guest, whose errors are not believed more than they have to be: see `TTRPCError.init(ofGuest:)`.
        case guest
    }

    /// The timeout of a call that sets none.
    public static let defaultTimeout: Duration = .seconds(10)
    /// For a call that waits for an event, such as the end of a process: no deadline.
    public static let noTimeout: Duration = .seconds(Int64.max)

    private let connection: ClientConnection
    private let closing: Flag

    /// Creates a client on a duplicate of a connected stream socket, Unix or vsock. The caller should close its own descriptor: the
    /// other side sees the end of the connection only when all duplicates are closed.
    ///
    /// - Parameters:
    ///   - peer: who answers.
    ///   - onClose: called once when the connection ends other than by `close()`, not on the event loop.
    /// - Throws: `TTRPCError` when the socket can't be used.
    public convenience init(
        connected socket: SharedDescriptor, peer: Peer = .host, onClose: (@Sendable (TTRPCError) -> Void)? = nil
    ) async throws(TTRPCError) {
        let descriptor = try duplicate(socket, listening: false)
        try await self.init("take over a connected socket", onClose, peer: peer) { bootstrap in
            bootstrap.withConnectedSocket(descriptor)
        }
    }

    /// Connects to the Unix socket at `path`, within `timeout`.
    public convenience init(
        unixPath path: String, timeout: Duration = defaultTimeout, onClose: (@Sendable (TTRPCError) -> Void)? = nil
    ) async throws(TTRPCError) {
        try await self.init("connect to \(path)", onClose) { bootstrap in
            bootstrap.connectTimeout(timeAmount(timeout) ?? .hours(1)).connect(unixDomainSocketPath: path)
        }
    }

    /// Connects to vsock `port` of the machine with context id `cid`, within `timeout`.
    public convenience init(
        vsock cid: UInt32, port: UInt32, timeout: Duration = defaultTimeout,
        onClose: (@Sendable (TTRPCError) -> Void)? = nil
    ) async throws(TTRPCError) {
        try await self.init("connect to vsock \(cid):\(port)", onClose) { bootstrap in
            bootstrap.connectTimeout(timeAmount(timeout) ?? .hours(1)).connect(
                to: VsockAddress(
                    cid: .init(rawValue: cid), port: .init(rawValue: port)))
        }
    }

    private init(
        _ doing: String, _ onClose: (@Sendable (TTRPCError) -> Void)?, peer: Peer = .host,
        _ connect: (ClientBootstrap) -> EventLoopFuture<any Channel>
    ) async throws(TTRPCError) {
        let closing = Flag()
        let bootstrap = ClientBootstrap(group: sharedLoop).channelInitializer { channel in
            channel.eventLoop.makeCompletedFuture {
                let connection = ClientConnection(channel, peer: peer) { failure in
                    // Not on the event loop, which the handler could block.
                    if let onClose, !closing.isSet { Task.detached { onClose(failure) } }
                }
                try channel.pipeline.syncOperations.addHandler(connection)
            }
        }
        do {
            let channel = try await connect(bootstrap).get()
            connection = try await channel.eventLoop.submit {
                try channel.pipeline.syncOperations.handler(type: ClientConnection.self)
            }.get()
        } catch {
            throw TTRPCError(.unavailable, "\(doing): \(error)")
        }
        self.closing = closing
    }

    deinit { close() }

    /// Closes the connection. Calls in progress fail as `cancelled`. `onClose` is not called.
    public func close() {
        closing.set()
        connection.onLoop { [connection] in
            connection.close(TTRPCError(.cancelled, "the connection was closed on this side"))
        }
    }

    /// Calls a method that takes one message and returns one. The caller is usually generated code.
    ///
    /// - Parameter service: the fully qualified name: `containerd.task.v2.Task`.
    /// - Throws: `TTRPCError`, with service and method in its message when this side found the error.
    public func call<Response: Message>(
        _ service: String, _ method: String, _ request: some Message, metadata: TTRPCMetadata = [:],
        timeout: Duration = defaultTimeout
    ) async throws(TTRPCError) -> Response {
        let stream = StreamState(streamsIn: false, streamsOut: false)
        let request = try Self.request(service, method, encoded(request), metadata, timeout)
        connection.open(stream, request, flags: [], timeout: timeAmount(timeout))
        do {
            return try await TTRPCReceiver(stream.inbox).only()
        } catch {
            connection.abandon(stream)
            throw error.on(service, method)
        }
    }

    /// Calls a method that takes a stream of messages.
    ///
    /// - Parameter serverStreams: whether it returns a stream, and not one message.
    public func stream<Request: Message, Response: Message>(
        _ service: String, _ method: String, serverStreams: Bool, metadata: TTRPCMetadata = [:],
        timeout: Duration = defaultTimeout
    ) async throws(TTRPCError) -> TTRPCStream<Request, Response> {
        let stream = StreamState(streamsIn: serverStreams, streamsOut: true)
        let request = try Self.request(service, method, [], metadata, timeout)
        connection.open(stream, request, flags: .remoteOpen, timeout: timeAmount(timeout))
        return TTRPCStream(ClientCall(self, connection, stream))
    }

    /// Calls a method that takes one message and returns a stream.
    public func stream<Request: Message, Response: Message>(
        _ service: String, _ method: String, sending request: Request, metadata: TTRPCMetadata = [:],
        timeout: Duration = defaultTimeout
    ) async throws(TTRPCError) -> TTRPCStream<Request, Response> {
        let stream = StreamState(streamsIn: true, streamsOut: false)
        let request = try Self.request(service, method, encoded(request), metadata, timeout)
        connection.open(stream, request, flags: .remoteClosed, timeout: timeAmount(timeout))
        return TTRPCStream(ClientCall(self, connection, stream))
    }

    private static func request(
        _ service: String, _ method: String, _ payload: [UInt8], _ metadata: TTRPCMetadata, _ timeout: Duration
    ) throws(TTRPCError) -> [UInt8] {
        var request = WireRequest()
        request.service = service
        request.method = method
        request.payload = .init(payload)
        request.timeoutNano = timeAmount(timeout)?.nanoseconds ?? 0
        request.metadata = metadata.entries.map { entry in
            var pair = WireKeyValue()
            pair.key = entry.key
            pair.value = entry.value
            return pair
        }
        let bytes = try encoded(request)
        if bytes.count > FrameHeader.longest { throw Connection.tooLong(bytes.count).on(service, method) }
        return bytes
    }
}

extension TTRPCError {
    /// Adds service and method to an error that this side has found. A server's error stays as it is.
    fileprivate func on(_ service: String, _ method: String) -> TTRPCError {
        switch code {
        case .deadlineExceeded, .cancelled, .unavailable, .resourceExhausted:
            TTRPCError(code, "\(service).\(method): \(message)", details: details)
        default: self
        }
    }
}
