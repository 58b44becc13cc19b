import LinuxSystem
import NIOCore
import NIOHTTP1
import NIOPosix
import Sandbox
import TTRPC
import Telemetry

/// Asks pods' servers for their metrics.
enum MetricsClient {
    /// Bytes of an answer; more is refused.
    private static let longestAnswer = 16 << 20

    /// The metrics that the server at a Unix socket answers.
    ///
    /// - Parameter limit: for all of it.
    static func metrics(at path: String, _ format: MetricFormat, within limit: TimeAmount) async throws -> String {
        let answer = sharedLoop.next().makePromise(of: String.self)
        let timeout = sharedLoop.next().scheduleTask(in: limit) {
            answer.fail(SandboxError.failed("\(path): no answer within \(limit.nanoseconds / 1_000_000) ms"))
        }
        defer { timeout.cancel() }
        let connection: any Channel
        do {
            connection = try await ClientBootstrap(group: sharedLoop)
                .connectTimeout(limit)
                .channelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture {
                        let pipeline = channel.pipeline.syncOperations
                        try pipeline.addHTTPClientHandlers()
                        try pipeline.addHandler(NIOHTTPClientResponseAggregator(maxContentLength: longestAnswer))
                        try pipeline.addHandler(AnswerHandler(answer))
                    }
                }
                .connect(unixDomainSocketPath: path).get()
        } catch {
            answer.fail(error)
            throw error
        }
        defer { connection.close(promise: nil) }
        let headers: HTTPHeaders = ["Host": "localhost", "Accept": format.contentType, "Connection": "close"]
        let head = HTTPRequestHead(version: .http1_1, method: .GET, uri: "/metrics", headers: headers)
        connection.write(HTTPClientRequestPart.head(head), promise: nil)
        connection.writeAndFlush(HTTPClientRequestPart.end(nil), promise: nil)
        return try await answer.futureResult.get()
    }
}

/// Takes one answer.
private final class AnswerHandler: ChannelInboundHandler {
    typealias InboundIn = NIOHTTPClientResponseFull

    private let answer: EventLoopPromise<String>

    init(_ answer: EventLoopPromise<String>) { self.answer = answer }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let response = unwrapInboundIn(data)
        guard response.head.status == .ok else {
            return answer.fail(SandboxError.failed("the pod's server answered \(response.head.status.code)"))
        }
        answer.succeed(response.body.map { String(buffer: $0) } ?? "")
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        answer.fail(error)
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        answer.fail(SandboxError.failed("the pod's server closed the connection"))
    }
}
