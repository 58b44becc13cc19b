import LinuxSystem
import SwiftProtobuf
import Synchronization
import TTRPC
import TaskAPI

/// A stream of messages that a client has opened by its id, for a transfer that names it.
final class TransferStream: Sendable {
    private let requests: TTRPCReceiver<Google_Protobuf_Any>
    private let responses: TTRPCSender<Google_Protobuf_Any>
    /// Settled when the server has nothing more to send, with what has failed.
    let finished: Promise<TTRPCError?>

    init(
        _ requests: TTRPCReceiver<Google_Protobuf_Any>, _ responses: TTRPCSender<Google_Protobuf_Any>
    ) throws {
        (self.requests, self.responses) = (requests, responses)
        finished = try Promise()
    }

    /// - Returns: nil when the client sends nothing more.
    func receive() async throws(TTRPCError) -> Google_Protobuf_Any? { try await requests.next() }

    func send(_ message: some Message) async throws {
        try await responses.send(Google_Protobuf_Any(containerd: message))
    }

    /// Ends the stream.
    func finish(_ failure: TTRPCError? = nil) { finished.settle(failure) }
}

extension Google_Protobuf_Any {
    /// A message in an envelope, its type named as containerd does it: without a host.
    init(containerd message: some Message) throws {
        self.init()
        typeURL = type(of: message).protoMessageName
        value = try message.serializedBytes()
    }

    /// The message, if it is one of this type.
    ///
    /// - Throws: `TTRPCError` where it can't be decoded.
    func message<M: Message>(_ type: M.Type) throws(TTRPCError) -> M? {
        guard typeName == M.protoMessageName else { return nil }
        do { return try M(serializedBytes: value) } catch {
            throw TTRPCError(.invalidArgument, "decode \(M.protoMessageName): \(error)")
        }
    }

    /// The full name of its type.
    var typeName: String { typeURL.split(separator: "/").last.map(String.init) ?? "" }
}

/// containerd's Streaming service for one pod: clients open streams, which transfers then name. A stream lasts until its transfer is done, or
/// its client goes; one that no transfer names ends after a minute.
final class TransferStreams: StreamingService {
    private let waiting = Mutex<[String: TransferStream]>([:])

    /// How many may wait for their transfers.
    private static let most = 256
    /// The longest id, bytes.
    private static let longestID = 256
    /// How long one waits for its transfer.
    private static let longestWait = Duration.seconds(60)

    func stream(
        _ requests: TTRPCReceiver<Google_Protobuf_Any>, responses: TTRPCSender<Google_Protobuf_Any>,
        context: TTRPCContext
    ) async throws {
        guard let first = try await requests.next(), let start = try first.message(StreamingStreamInit.self) else {
            throw TTRPCError(.invalidArgument, "the first message: not a StreamInit")
        }
        guard (1...Self.longestID).contains(start.id.utf8.count) else {
            throw TTRPCError(.invalidArgument, "id: not of 1 to \(Self.longestID) bytes")
        }
        let stream = try TransferStream(requests, responses)
        try add(stream, start.id)
        defer { remove(stream, start.id) }
        try await stream.send(Google_Protobuf_Empty())
        let limit = Task {
            try await Task.sleep(for: Self.longestWait)
            if isWaiting(stream, start.id) {
                stream.finish(TTRPCError(.deadlineExceeded, "no transfer has named the stream within a minute"))
            }
        }
        defer { limit.cancel() }
        let failure = await withTaskCancellationHandler {
            await stream.finished.value()
        } onCancel: {
            stream.finish(TTRPCError(.cancelled, "the client has gone"))
        }
        if let failure { throw failure }
    }

    private func add(_ stream: TransferStream, _ id: String) throws(TTRPCError) {
        try waiting.withLock { waiting throws(TTRPCError) in
            guard waiting[id] == nil else { throw TTRPCError(.alreadyExists, "stream \(id)") }
            guard waiting.count < Self.most else {
                throw TTRPCError(.resourceExhausted, "\(waiting.count) streams wait for their transfers")
            }
            waiting[id] = stream
        }
    }

    private func isWaiting(_ stream: TransferStream, _ id: String) -> Bool { waiting.withLock { $0[id] === stream } }

    private func remove(_ stream: TransferStream, _ id: String) {
        waiting.withLock { waiting in
            if waiting[id] === stream { waiting[id] = nil }
        }
    }

    /// Takes a stream for a transfer, which finishes it.
    func take(_ id: String) throws(TTRPCError) -> TransferStream {
        guard let stream = waiting.withLock({ $0.removeValue(forKey: id) }) else {
            throw TTRPCError(.notFound, "stream \(id)")
        }
        return stream
    }
}
