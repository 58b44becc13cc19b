import Sandbox
import SwiftProtobuf
import TTRPC
import TaskAPI

extension Runtime {
    /// `checkpoint`: writes a running container, with its machine, to a directory.
    ///
    /// - Parameters:
    ///   - path: of the directory, absolute; made where it is not there.
    ///   - isLeftRunning: the container goes on; else it is ended and deleted.
    public func checkpoint(_ id: String, to path: String, isLeftRunning: Bool) async throws {
        try requireRoot(for: "checkpoint")
        try await asking {
            let container = try await open(id)
            try await checkpoint(container, to: path, isLeftRunning: isLeftRunning)
        }
        if !isLeftRunning { try await delete(id, isForced: true) }
    }

    private func checkpoint(_ container: OpenContainer, to path: String, isLeftRunning: Bool) async throws {
        let options = RuncOptionsCheckpointOptions.with { $0.exit = !isLeftRunning }
        let request = try TaskCheckpointTaskRequest.with {
            $0.id = container.id
            $0.path = path
            $0.options = try .init(message: options)
        }
        _ = try await container.server().checkpoint(request, timeout: Runtime.requestTimeout)
    }
}
