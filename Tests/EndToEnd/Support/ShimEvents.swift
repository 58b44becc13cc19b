import Glibc
import LinuxSystem
internal import SwiftProtobuf
import Synchronization
import TTRPC
internal import TaskAPI

/// Takes a shim's events, as containerd does.
final class ShimEvents: Sendable {
    private final class Recorder: EventsService {
        let envelopes = Mutex<[EventEnvelope]>([])

        func forward(_ request: EventForwardRequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty {
            envelopes.withLock { $0.append(request.envelope) }
            return .init()
        }
    }

    /// What TTRPC_ADDRESS says.
    let path: String
    private let recorder = Recorder()
    private let server: TTRPCServer

    /// Listens at a path that does not exist.
    init(at path: String) throws {
        self.path = path
        server = TTRPCServer([.events(recorder)])
        let server = server
        try waited { try await server.serve(unixPath: path) }
    }

    var envelopes: [EventEnvelope] { recorder.envelopes.withLock { $0 } }
    /// In the order in which they came: `/tasks/start`.
    var topics: [String] { envelopes.map(\.topic) }

    /// Waits until an event has come.
    func wait(for topic: String, within limit: Duration = .seconds(10)) throws {
        let end = ContinuousClock.now + limit * Lab.patience
        while !topics.contains(topic) {
            guard ContinuousClock.now < end else { throw LabError("no event \(topic); there were \(topics)") }
            usleep(5000)
        }
    }

    func stop() throws {
        let server = server
        try waited { await server.stop() }
        unlink(path)
    }
}

/// Runs what suspends to its end. Who waits must not be a thread of Swift's pool, which has as many as there are processors: tests that
/// wait so are on the main actor.
func waited<R: Sendable>(_ body: @Sendable @escaping () async throws -> R) throws -> R {
    let done = try Promise<Result<R, any Error>>()
    Task.detached {
        do { done.settle(.success(try await body())) } catch { done.settle(.failure(error)) }
    }
    guard let result = done.wait(timeout: .seconds(600)) else { throw LabError("no answer") }
    return try result.get()
}
