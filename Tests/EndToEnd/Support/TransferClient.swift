import LinuxSystem
internal import SwiftProtobuf
import Synchronization
import TTRPC
internal import TaskAPI

/// A client of a pod's Transfer and Streaming services, which does what containerd's core/transfer/streaming does.
struct TransferClient {
    /// The code of the error with which a transfer ends.
    struct Failure: Error, Equatable {
        let code: String

        init(_ code: String) { self.code = code }
    }

    private let transfer: TransferServiceClient
    private let streaming: StreamingServiceClient
    private static let chunk = 32 << 10
    private static let counter = Mutex(0)

    init(_ client: TTRPCClient) { (transfer, streaming) = (.init(client), .init(client)) }

    private typealias Stream = TTRPCStream<Google_Protobuf_Any, Google_Protobuf_Any>

    /// Asks for nothing.
    func probe() throws { try finish { try await transfer(.init(), .init()) } }

    /// - Parameter ignoringWindow: more is sent than was asked for.
    func copyIn(
        _ archive: [UInt8], to path: String, of container: String, keepsOwners: Bool = false,
        mediaType: String = "application/x-tar", ignoringWindow: Bool = false
    ) throws {
        try finish {
            let (id, stream) = try await open()
            let sending = Task { try? await send(archive, stream, ignoringWindow) }
            let source = TransferTypeReadStream.with { ($0.stream, $0.mediaType) = (id, mediaType) }
            let destination = TransferTypeContainerPath.with {
                ($0.containerID, $0.path, $0.preserveOwnership) = (container, path, keepsOwners)
            }
            defer { sending.cancel() }
            try await transfer(packed(source), packed(destination))
        }
    }

    func copyOut(_ path: String, of container: String, isShallow: Bool = false) throws -> [UInt8] {
        try finish {
            let (id, stream) = try await open()
            let receiving = Task { try await receive(stream) }
            let source = TransferTypeContainerPath.with {
                ($0.containerID, $0.path, $0.noWalk) = (container, path, isShallow)
            }
            let destination = TransferTypeWriteStream.with { ($0.stream, $0.mediaType) = (id, "application/x-tar") }
            try await transfer(packed(source), packed(destination))
            return try await receiving.value
        }
    }

    /// Begins a copy out and one into the container, and closes the connection.
    func leaveInTheMiddle(of container: String) throws {
        try finish {
            let path = TransferTypeContainerPath.with { ($0.containerID, $0.path) = (container, "/c") }
            let (out, output) = try await open()
            let (into, input) = try await open()
            let first = Task {
                let stream = TransferTypeWriteStream.with { ($0.stream, $0.mediaType) = (out, "application/x-tar") }
                try await transfer(packed(path), packed(stream))
            }
            let second = Task {
                let stream = TransferTypeReadStream.with { ($0.stream, $0.mediaType) = (into, "application/x-tar") }
                try await transfer(packed(stream), packed(path))
            }
            try await Task.sleep(for: .milliseconds(500))
            transfer.client.close()
            _ = try? await (first.value, second.value)
            withExtendedLifetime((output, input)) {}
        }
    }

    // MARK: The protocol

    private func transfer(_ source: Google_Protobuf_Any, _ destination: Google_Protobuf_Any) async throws {
        _ = try await transfer.transfer(
            .with { ($0.source, $0.destination) = (source, destination) }, timeout: .seconds(60) * Lab.patience)
    }

    private func packed(_ message: some Message) throws -> Google_Protobuf_Any {
        var packed = Google_Protobuf_Any()
        packed.typeURL = type(of: message).protoMessageName
        packed.value = try message.serializedBytes()
        return packed
    }

    private func open() async throws -> (id: String, stream: Stream) {
        let number = Self.counter.withLock { count in
            count += 1
            return count
        }
        let id = "data-\(number)"
        let stream = try await streaming.stream(timeout: .seconds(120) * Lab.patience)
        try await stream.send(packed(StreamingStreamInit.with { $0.id = id }))
        guard try await stream.responses.next()?.typeURL == "google.protobuf.Empty" else {
            throw LabError("the stream is not acknowledged")
        }
        return (id, stream)
    }

    private func send(_ archive: [UInt8], _ stream: Stream, _ ignoringWindow: Bool) async throws {
        var (rest, window) = (archive[...], ignoringWindow ? Int.max : 0)
        while !rest.isEmpty {
            while window <= 0 {
                guard let message = try await stream.responses.next() else { return }
                window += Int(try TransferTypeWindowUpdate(serializedBytes: message.value).update)
            }
            let part = rest.prefix(min(window, ignoringWindow ? 1 << 20 : Self.chunk))
            try await stream.send(packed(TransferTypeData.with { $0.data = .init(part) }))
            rest = rest.dropFirst(part.count)
            if !ignoringWindow { window -= part.count }
        }
        try await stream.closeSend()
    }

    private func receive(_ stream: Stream) async throws -> [UInt8] {
        var (received, window): ([UInt8], Int) = ([], 0)
        while true {
            if window < 2 * Self.chunk {
                // A stream whose server has sent all takes no more.
                try? await stream.send(packed(TransferTypeWindowUpdate.with { $0.update = Int32(2 * Self.chunk) }))
                window += 2 * Self.chunk
            }
            guard let message = try await stream.responses.next() else { return received }
            let data = try TransferTypeData(serializedBytes: message.value).data
            window -= data.count
            received.append(contentsOf: data)
        }
    }

    private func finish<R: Sendable>(_ body: @Sendable @escaping () async throws -> R) throws -> R {
        do { return try waited(body) } catch let error as TTRPCError {
            throw Failure("\(error.code)")
        }
    }
}

extension ShimPod {
    /// A connection of its own to the pod's services.
    func transfers() throws -> TransferClient {
        let path = path
        return TransferClient(try waited { try await TTRPCClient(unixPath: path) })
    }
}
