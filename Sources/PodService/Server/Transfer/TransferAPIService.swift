import LinuxSystem
import Sandbox
import SwiftProtobuf
import TTRPC
import TaskAPI

/// containerd's Transfer service for one pod: files out of a running container, or into it, as a tar archive on a stream that the client has
/// opened before by the Streaming service.
struct TransferAPIService: TransferService {
    let pod: Pod
    let streams: TransferStreams

    /// The service, and that of the streams.
    static func all(_ pod: Pod) -> [TTRPCServiceDescription] {
        let streams = TransferStreams()
        return [.streaming(streams), .transfer(TransferAPIService(pod: pod, streams: streams))]
    }

    private static let mediaType = "application/x-tar"

    func transfer(_ request: TransferTransferRequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty {
        // Nothing is reported on the way.
        let progress = request.options.progressStream
        if !progress.isEmpty { try streams.take(progress).finish() }
        guard !request.source.typeURL.isEmpty else { throw TTRPCError(.invalidArgument, "source: missing") }
        guard !request.destination.typeURL.isEmpty else { throw TTRPCError(.invalidArgument, "destination: missing") }
        if let path = try request.source.message(TransferTypeContainerPath.self),
            let stream = try request.destination.message(TransferTypeWriteStream.self)
        {
            try await run(stream.stream, stream.mediaType, .init(packing: path)) { stream, pipe in
                try await TransferOutput(stream).carry(from: pipe)
            }
        } else if let stream = try request.source.message(TransferTypeReadStream.self),
            let path = try request.destination.message(TransferTypeContainerPath.self)
        {
            try await run(stream.stream, stream.mediaType, .init(unpacking: path)) { stream, pipe in
                try await TransferInput(stream).carry(to: pipe)
            }
        } else {
            throw TTRPCError(
                .unimplemented, "a transfer from \(request.source.typeName) to \(request.destination.typeName)")
        }
        return .init()
    }

    /// Copies between a container and a stream of the client's, and ends the stream.
    ///
    /// - Parameter carry: moves the archive between the stream and a pipe.
    private func run(
        _ id: String, _ mediaType: String, _ copy: FileCopy,
        _ carry: @escaping @Sendable (TransferStream, SharedDescriptor) async throws -> Void
    ) async throws {
        let stream = try streams.take(id)
        do {
            guard mediaType == Self.mediaType else {
                throw TTRPCError(.unimplemented, "media_type \(mediaType): \(Self.mediaType) alone is supported")
            }
            try await answering { try await self.copy(copy, stream, carry) }
            stream.finish()
        } catch {
            stream.finish(TTRPCError(answering: error))
            throw error
        }
    }

    /// Runs both sides of a pipe side by side. Each closes its end when it is over, which ends the other one.
    private func copy(
        _ copy: FileCopy, _ stream: TransferStream,
        _ carry: @escaping @Sendable (TransferStream, SharedDescriptor) async throws -> Void
    ) async throws {
        let pipe = try PipeEnds()
        let pod = pod
        try await withThrowingTaskGroup { group in
            group.addTask { try await carry(stream, copy.isOut ? pipe.takeReading() : pipe.takeWriting()) }
            group.addTask { try await pod.copy(copy, copy.isOut ? pipe.takeWriting() : pipe.takeReading()) }
            // What fails first is the cause, and ends the other one.
            while try await group.next() != nil {}
        }
    }
}

extension FileCopy {
    fileprivate init(packing path: TransferTypeContainerPath) {
        self.init(container: path.containerID, path: Self.absolute(path.path), .pack(isShallow: path.noWalk))
    }

    fileprivate init(unpacking path: TransferTypeContainerPath) {
        self.init(
            container: path.containerID, path: Self.absolute(path.path),
            .unpack(keepsOwners: path.preserveOwnership, .madeDirectory))
    }

    /// Relative paths begin at the container's root.
    private static func absolute(_ path: String) -> String { path.utf8.first == UInt8(ascii: "/") ? path : "/" + path }
}
