import NIOCore
import NIOHPACK
import NIOHTTP2

/// A gRPC call on a stream of its own: it sends one message, receives one, and reads the status from the trailers.
///
/// Source: grpc/doc/PROTOCOL-HTTP2.md.
final class UnaryCall: ChannelInboundHandler {
    typealias InboundIn = HTTP2Frame.FramePayload
    typealias OutboundOut = HTTP2Frame.FramePayload

    struct Failure: Error, CustomStringConvertible {
        var message: String
        var description: String { message }
    }

    /// A byte that says whether the message is compressed, and its length: 4 bytes, the largest first.
    private static let prefixLength = 5
    private static let maximumResponse = 16 << 20

    private let path: String
    private let message: [UInt8]
    private let promise: EventLoopPromise<[UInt8]>
    private var response: [UInt8] = []

    init(_ path: String, _ message: [UInt8], _ promise: EventLoopPromise<[UInt8]>) {
        self.path = path
        self.message = message
        self.promise = promise
    }

    func channelActive(context: ChannelHandlerContext) {
        let headers: HPACKHeaders = [
            ":method": "POST", ":scheme": "http", ":path": path, ":authority": "localhost",
            "content-type": "application/grpc", "te": "trailers",
        ]
        context.write(wrapOutboundOut(.headers(.init(headers: headers))), promise: nil)
        var buffer = context.channel.allocator.buffer(capacity: Self.prefixLength + message.count)
        buffer.writeInteger(UInt8(0))
        buffer.writeInteger(UInt32(message.count))
        buffer.writeBytes(message)
        context.writeAndFlush(
            wrapOutboundOut(.data(.init(data: .byteBuffer(buffer), endStream: true))), promise: nil)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .headers(let frame):
            if let status = frame.headers.first(name: ":status"), status != "200" { fail("HTTP status \(status)") }
            guard let code = frame.headers.first(name: "grpc-status") else { return }
            if code == "0" { return succeed() }
            fail(frame.headers.first(name: "grpc-message").map(decoded) ?? "gRPC status \(code)")
        case .data(let frame):
            guard case .byteBuffer(let bytes) = frame.data else { return }
            response += bytes.readableBytesView
            if response.count > Self.maximumResponse {
                fail("the response is longer than \(Self.maximumResponse) bytes")
            }
        default: break
        }
    }

    func channelInactive(context: ChannelHandlerContext) { fail("the connection was closed") }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        fail("\(error)")
        context.close(promise: nil)
    }

    private func succeed() {
        let length = response.dropFirst().prefix(4).reduce(0) { $0 << 8 | Int($1) }
        guard response.first == 0, response.count == Self.prefixLength + length else {
            return fail("the response is not a gRPC message")
        }
        promise.succeed(Array(response.dropFirst(Self.prefixLength)))
    }

    /// A promise keeps its first outcome.
    private func fail(_ message: String) { promise.fail(Failure(message: message)) }

    /// `grpc-message` has bytes as %XX.
    private func decoded(_ text: String) -> String {
        var bytes: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let byte = rest.popFirst() {
            if byte == UInt8(ascii: "%"), let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16)
            {
                bytes.append(value)
                rest.removeFirst(2)
            } else {
                bytes.append(byte)
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}
