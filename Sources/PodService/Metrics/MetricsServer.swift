import LinuxSystem
import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization
import TTRPC
public import Telemetry

/// Answers HTTP requests for /metrics, in the form that the client wants.
public final class MetricsServer: Sendable {
    /// Of one server at a time; more are closed at once.
    static let maximumConnections = 16
    /// A connection on which nothing happens is closed.
    private static let idleLimit = TimeAmount.seconds(60)

    private let text: @Sendable (MetricFormat) async -> String
    private let connections = Mutex(0)
    private let listener = Mutex<(any Channel)?>(nil)

    /// - Parameter text: gives the metrics now.
    public init(_ text: @Sendable @escaping (MetricFormat) async -> String) { self.text = text }

    /// Serves at a Unix socket, which only its owner may connect to. The socket's file is the caller's.
    public func serve(unixPath path: String) async throws {
        let socket = try UnixAddress.listen(path).release()
        try await listen { $0.withBoundSocket(socket) }
    }

    /// Serves at a TCP address.
    ///
    /// - Parameter port: 0: any that is free.
    /// - Returns: the address.
    @discardableResult
    public func serve(host: String, port: Int) async throws -> String {
        try await listen { $0.serverChannelOption(.socketOption(.so_reuseaddr), value: 1).bind(host: host, port: port) }
        let address = listener.withLock { $0 }?.localAddress
        return address.flatMap { address in address.ipAddress.map { "\($0):\(address.port ?? 0)" } } ?? ""
    }

    /// Takes no more connections.
    public func stop() async {
        let channel = listener.withLock { $0.take() }
        try? await channel?.close().get()
    }

    private func listen(_ bind: (ServerBootstrap) -> EventLoopFuture<any Channel>) async throws {
        let bootstrap = ServerBootstrap(group: sharedLoop)
            .serverChannelOption(.backlog, value: 16)
            .serverChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(AcceptBackoffHandler())
                }
            }
            .childChannelInitializer { self.accept($0) }
        let channel = try await bind(bootstrap).get()
        listener.withLock { $0 = channel }
    }

    private func accept(_ channel: any Channel) -> EventLoopFuture<Void> {
        let isTooMany = connections.withLock { connections in
            connections += 1
            return connections > Self.maximumConnections
        }
        channel.closeFuture.whenComplete { _ in self.connections.withLock { $0 -= 1 } }
        if isTooMany { return channel.close() }
        return channel.eventLoop.makeCompletedFuture {
            let pipeline = channel.pipeline.syncOperations
            try pipeline.addHandler(IdleStateHandler(allTimeout: Self.idleLimit))
            try pipeline.configureHTTPServerPipeline(withErrorHandling: true)
            try pipeline.addHandler(MetricsHandler(text))
        }
    }
}

/// One connection. NIO lets a request come when the one before has been answered.
private final class MetricsHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let text: @Sendable (MetricFormat) async -> String
    private var head: HTTPRequestHead?

    init(_ text: @Sendable @escaping (MetricFormat) async -> String) { self.text = text }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head): self.head = head
        case .body: break
        case .end:
            if let head { Self.answer(head, on: context.channel, text) }
            head = nil
        }
    }

    private static func answer(
        _ head: HTTPRequestHead, on channel: any Channel, _ text: @Sendable @escaping (MetricFormat) async -> String
    ) {
        Task {
            let answer = await answer(to: head, text)
            channel.answer(head, answer)
        }
    }

    private static func answer(
        to head: HTTPRequestHead, _ text: @Sendable (MetricFormat) async -> String
    ) async -> MetricsAnswer {
        let plain = "text/plain; charset=utf-8"
        let path = head.uri.split(separator: "?", maxSplits: 1).first ?? ""
        guard path == "/metrics" else {
            return MetricsAnswer(status: .notFound, type: plain, body: "not found: metrics are at /metrics\n")
        }
        guard head.method == .GET || head.method == .HEAD else {
            return MetricsAnswer(
                status: .methodNotAllowed, type: plain, body: "method not allowed: GET and HEAD are\n")
        }
        let format = MetricFormat(accept: head.headers["Accept"])
        return MetricsAnswer(status: .ok, type: format.contentType, body: await text(format))
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if event is IdleStateHandler.IdleStateEvent { context.close(promise: nil) }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}

private struct MetricsAnswer: Sendable {
    var status: HTTPResponseStatus
    var type: String
    var body: String
}

extension Channel {
    /// Answers a request, and closes the connection where the client wants that.
    fileprivate func answer(_ head: HTTPRequestHead, _ answer: MetricsAnswer) {
        let (status, body) = (answer.status, answer.body)
        var headers = HTTPHeaders()
        headers.add(name: "Content-Type", value: answer.type)
        headers.add(name: "Content-Length", value: "\(body.utf8.count)")
        if status == .methodNotAllowed { headers.add(name: "Allow", value: "GET, HEAD") }
        if !head.isKeepAlive { headers.add(name: "Connection", value: "close") }
        let response = HTTPResponseHead(version: head.version, status: status, headers: headers)
        _ = write(HTTPServerResponsePart.head(response))
        if head.method != .HEAD { _ = write(HTTPServerResponsePart.body(.byteBuffer(ByteBuffer(string: body)))) }
        let done = writeAndFlush(HTTPServerResponsePart.end(nil))
        if !head.isKeepAlive { done.whenComplete { _ in self.close(promise: nil) } }
    }
}
