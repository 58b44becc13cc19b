import NIOCore
import NIOHTTP2
import NIOPosix
import SwiftProtobuf

/// A failed call: the engine refused it, or it did not reach the engine.
public struct CRIError: Error, CustomStringConvertible, Sendable {
    /// `RunPodSandbox`.
    public var call: String
    public var message: String

    public var description: String { "\(call): \(message)" }
}

/// A connection to an engine's CRI service, `runtime.v1.RuntimeService`: gRPC over HTTP/2 on a Unix socket.
public struct CRIClient: Sendable {
    private let connection: NIOHTTP2Handler.AsyncStreamMultiplexer<Void>

    /// - Parameter path: the engine's socket, such as `/run/containerd/containerd.sock`.
    public init(path: String) async throws {
        do {
            connection = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .connect(unixDomainSocketPath: path) { channel in
                    channel.configureAsyncHTTP2Pipeline(mode: .client) { $0.eventLoop.makeSucceededVoidFuture() }
                }
        } catch {
            throw CRIError(call: "connect to \(path)", message: "\(error)")
        }
    }

    public func version(within limit: Duration) async throws -> CRIVersionResponse {
        try await call("Version", CRIVersionRequest(), limit)
    }

    public func runPodSandbox(
        _ request: CRIRunPodSandboxRequest, within limit: Duration
    ) async throws -> CRIRunPodSandboxResponse { try await call("RunPodSandbox", request, limit) }

    public func createContainer(
        _ request: CRICreateContainerRequest, within limit: Duration
    ) async throws -> CRICreateContainerResponse { try await call("CreateContainer", request, limit) }

    public func startContainer(_ id: String, within limit: Duration) async throws {
        let request = CRIStartContainerRequest.with { $0.containerID = id }
        let _: CRIStartContainerResponse = try await call("StartContainer", request, limit)
    }

    /// Stops all containers of the pod.
    public func stopPodSandbox(_ id: String, within limit: Duration) async throws {
        let request = CRIStopPodSandboxRequest.with { $0.podSandboxID = id }
        let _: CRIStopPodSandboxResponse = try await call("StopPodSandbox", request, limit)
    }

    public func removePodSandbox(_ id: String, within limit: Duration) async throws {
        let request = CRIRemovePodSandboxRequest.with { $0.podSandboxID = id }
        let _: CRIRemovePodSandboxResponse = try await call("RemovePodSandbox", request, limit)
    }

    private func call<Response: SwiftProtobuf.Message>(
        _ method: String, _ request: some SwiftProtobuf.Message, _ limit: Duration
    ) async throws -> Response {
        let message: [UInt8] = try request.serializedBytes()
        let nanoseconds = Int64(clamping: limit.components.seconds) * 1_000_000_000
        do {
            let response = try await connection.openStream { stream in
                let promise = stream.eventLoop.makePromise(of: [UInt8].self)
                let deadline = stream.eventLoop.scheduleTask(in: .nanoseconds(nanoseconds)) {
                    promise.fail(UnaryCall.Failure(message: "no reply within \(limit)"))
                    stream.close(promise: nil)
                }
                promise.futureResult.whenComplete { _ in deadline.cancel() }
                return stream.eventLoop.makeCompletedFuture {
                    try stream.pipeline.syncOperations.addHandler(
                        UnaryCall("/runtime.v1.RuntimeService/\(method)", message, promise))
                    return promise.futureResult
                }
            }
            return try Response(serializedBytes: try await response.get())
        } catch {
            throw CRIError(call: method, message: "\(error)")
        }
    }
}
