import NIOCore
import NIOHTTP1
import NIOPosix
import Sandbox
import TTRPC

/// A request by HTTP, on a connection of its own.
struct HTTPRequest: Sendable {
    enum Server: Sendable, CustomStringConvertible {
        /// A Unix socket's path.
        case unix(String)
        case tcp(host: String, port: Int)

        var description: String {
            switch self {
            case .unix(let path): path
            case .tcp(let host, let port): host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
            }
        }
    }

    struct Answer: Sendable {
        var status: HTTPResponseStatus
        var body: String
    }

    var server: Server
    var method: HTTPMethod
    var path: String
    /// Beside those that each request has.
    var headers: HTTPHeaders = [:]
    var body: [UInt8] = []
    /// Bytes of an answer; more is refused.
    var longestAnswer = 64 << 10

    /// Sends it and takes the answer.
    ///
    /// - Parameter limit: for all of it.
    func answer(within limit: TimeAmount) async throws -> Answer {
        let answer = sharedLoop.next().makePromise(of: Answer.self)
        let timeout = sharedLoop.next().scheduleTask(in: limit) {
            answer.fail(SandboxError.failed("\(server): no answer within \(limit.nanoseconds / 1_000_000) ms"))
        }
        defer { timeout.cancel() }
        let connection: any Channel
        do { connection = try await connect(answer, within: limit) } catch {
            answer.fail(error)
            throw error
        }
        defer { connection.close(promise: nil) }
        var all: HTTPHeaders = ["Connection": "close"]
        if case .tcp = server {
            all.add(name: "Host", value: "\(server)")
        } else {
            all.add(name: "Host", value: "localhost")
        }
        all.add(contentsOf: headers)
        if !body.isEmpty { all.add(name: "Content-Length", value: "\(body.count)") }
        let head = HTTPRequestHead(version: .http1_1, method: method, uri: path, headers: all)
        connection.write(HTTPClientRequestPart.head(head), promise: nil)
        if !body.isEmpty {
            connection.write(HTTPClientRequestPart.body(.byteBuffer(ByteBuffer(bytes: body))), promise: nil)
        }
        connection.writeAndFlush(HTTPClientRequestPart.end(nil), promise: nil)
        return try await answer.futureResult.get()
    }

    private func connect(_ answer: EventLoopPromise<Answer>, within limit: TimeAmount) async throws -> any Channel {
        let longest = longestAnswer
        let bootstrap = ClientBootstrap(group: sharedLoop)
            .connectTimeout(limit)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let pipeline = channel.pipeline.syncOperations
                    try pipeline.addHTTPClientHandlers()
                    try pipeline.addHandler(NIOHTTPClientResponseAggregator(maxContentLength: longest))
                    try pipeline.addHandler(AnswerHandler(answer))
                }
            }
        switch server {
        case .unix(let path): return try await bootstrap.connect(unixDomainSocketPath: path).get()
        case .tcp(let host, let port): return try await bootstrap.connect(host: host, port: port).get()
        }
    }
}

/// Takes one answer.
private final class AnswerHandler: ChannelInboundHandler {
    typealias InboundIn = NIOHTTPClientResponseFull

    private let answer: EventLoopPromise<HTTPRequest.Answer>

    init(_ answer: EventLoopPromise<HTTPRequest.Answer>) { self.answer = answer }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let response = unwrapInboundIn(data)
        let body = response.body.map { String(buffer: $0) } ?? ""
        answer.succeed(HTTPRequest.Answer(status: response.head.status, body: body))
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        answer.fail(error)
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        answer.fail(SandboxError.failed("the server closed the connection"))
    }
}
