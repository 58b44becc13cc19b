public import SwiftProtobuf

/// A service that a server offers: its name and methods. Generated code creates these: `.task(…)`, `.agent(…)`.
public struct TTRPCServiceDescription: Sendable {
    let name: String
    let methods: [String: TTRPCMethod]

    /// - Parameter name: the fully qualified name: `containerd.task.v2.Task`.
    public init(_ name: String, methods: [String: TTRPCMethod]) {
        self.name = name
        self.methods = methods
    }

    /// The same methods under another name, for a later version of an interface that has not changed.
    public func renamed(_ name: String) -> TTRPCServiceDescription {
        TTRPCServiceDescription(name, methods: methods)
    }

    /// The same methods, each called by `body`, which gets what the method gets beside its request, and the call itself.
    public func around(
        _ body: @escaping @Sendable (TTRPCContext, () async throws -> [UInt8]?) async throws -> [UInt8]?
    ) -> TTRPCServiceDescription {
        let methods = methods.mapValues { method in
            TTRPCMethod(clientStreams: method.clientStreams, serverStreams: method.serverStreams) {
                requests, responses, context in
                try await body(context) { try await method.run(requests, responses, context) }
            }
        }
        return TTRPCServiceDescription(name, methods: methods)
    }
}

/// A method of a service, of one of the four kinds.
public struct TTRPCMethod: Sendable {
    let clientStreams: Bool
    let serverStreams: Bool
    /// Returns the message of the response; nil when the server streams.
    let run: @Sendable (_ requests: Mailbox, _ responses: any FrameSending, TTRPCContext) async throws -> [UInt8]?

    /// One request, one response.
    public static func unary<Request: Message, Response: Message>(
        _ body: @escaping @Sendable (Request, TTRPCContext) async throws -> Response
    ) -> TTRPCMethod {
        TTRPCMethod(clientStreams: false, serverStreams: false) { requests, _, context in
            try await encoded(body(TTRPCReceiver(requests).only(), context))
        }
    }

    /// One request, a stream of responses.
    public static func serverStream<Request: Message, Response: Message>(
        _ body: @escaping @Sendable (Request, TTRPCSender<Response>, TTRPCContext) async throws -> Void
    ) -> TTRPCMethod {
        TTRPCMethod(clientStreams: false, serverStreams: true) { requests, responses, context in
            try await body(TTRPCReceiver(requests).only(), TTRPCSender(responses), context)
            return nil
        }
    }

    /// A stream of requests, one response.
    public static func clientStream<Request: Message, Response: Message>(
        _ body: @escaping @Sendable (TTRPCReceiver<Request>, TTRPCContext) async throws -> Response
    ) -> TTRPCMethod {
        TTRPCMethod(clientStreams: true, serverStreams: false) { requests, _, context in
            try await encoded(body(TTRPCReceiver(requests), context))
        }
    }

    /// A stream of requests, a stream of responses.
    public static func stream<Request: Message, Response: Message>(
        _ body: @escaping @Sendable (TTRPCReceiver<Request>, TTRPCSender<Response>, TTRPCContext) async throws -> Void
    ) -> TTRPCMethod {
        TTRPCMethod(clientStreams: true, serverStreams: true) { requests, responses, context in
            try await body(TTRPCReceiver(requests), TTRPCSender(responses), context)
            return nil
        }
    }
}

/// The messages of the other side of a stream, in order.
public struct TTRPCReceiver<Element: Message>: AsyncSequence, Sendable {
    private let mailbox: Mailbox
    /// Keeps a client's call in progress.
    private let call: ClientCall?

    init(_ mailbox: Mailbox, of call: ClientCall? = nil) {
        self.mailbox = mailbox
        self.call = call
    }

    /// Receives the next message.
    ///
    /// - Returns: nil when the other side has sent its last message.
    /// - Throws: the call's failure.
    public func next() async throws(TTRPCError) -> Element? {
        guard let bytes = try await mailbox.receive() else { return nil }
        return try decoded(bytes)
    }

    public func makeAsyncIterator() -> Iterator { Iterator(receiver: self) }

    public struct Iterator: AsyncIteratorProtocol {
        let receiver: TTRPCReceiver

        public mutating func next() async throws(TTRPCError) -> Element? { try await receiver.next() }

        public mutating func next(isolation actor: isolated (any Actor)?) async throws(TTRPCError) -> Element? {
            try await receiver.next()
        }
    }

    /// The one message of a side that does not stream.
    func only() async throws(TTRPCError) -> Element {
        guard let message = try await next() else { throw TTRPCError(.internal, "the stream ended without a message") }
        return message
    }
}

/// The sending side of a stream, for a server's method.
public struct TTRPCSender<Element: Message>: Sendable {
    private let stream: any FrameSending

    init(_ stream: any FrameSending) {
        self.stream = stream
    }

    /// Sends a message and returns when the system has accepted it.
    ///
    /// - Throws: `resourceExhausted` when the message is longer than 4 MiB.
    public func send(_ message: Element) async throws(TTRPCError) {
        try await stream.send(encoded(message))
    }
}

/// A side of a stream that can send data.
protocol FrameSending: Sendable {
    func send(_ message: [UInt8]) async throws(TTRPCError)
}

func encoded(_ message: some Message) throws(TTRPCError) -> [UInt8] {
    do {
        return try message.serializedBytes()
    } catch {
        throw TTRPCError(.internal, "encode \(type(of: message).protoMessageName): \(error)")
    }
}

func decoded<M: Message>(_ bytes: [UInt8]) throws(TTRPCError) -> M {
    do {
        return try M(serializedBytes: bytes)
    } catch {
        throw TTRPCError(.invalidArgument, "decode \(M.protoMessageName): \(error)")
    }
}
