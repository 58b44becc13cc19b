import FoundationEssentials
import Glibc
import LinuxSystem
import OCISpec
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

    /// `fork`: a copy of a running container, in a machine of its own, that goes on apart. The container stands still until its root
    /// file system has been copied.
    ///
    /// - Parameter options: of the new container, which outlives the command.
    /// - Throws: what could not be done; the container goes on, and nothing is left of the new one.
    public func fork(_ id: String, _ options: CreateOptions) async throws {
        try requireRoot(for: "fork")
        let copy = BundleCopy(options.bundle, hostname: String(options.id.prefix(63)))
        let image = "\(root)/.fork-\(options.id)-\(getpid())"
        defer { try? FileManager.default.removeItem(atPath: image) }
        do {
            try await asking {
                let container = try await open(id)
                try await pausing(container) {
                    try await checkpoint(container, to: image, isLeftRunning: true)
                    try await copy.make(of: container.record)
                }
                try await start(options, from: image)
            }
        } catch {
            copy.discard()
            throw error
        }
    }

    /// Calls `body` while a container is paused, by this or by somebody before.
    private func pausing(_ container: OpenContainer, _ body: () async throws -> Void) async throws {
        if try await container.status().state == .paused { return try await body() }
        let (id, task) = (container.id, try container.server())
        _ = try await task.pause(.with { $0.id = id }, timeout: Runtime.requestTimeout)
        do { try await body() } catch {
            _ = try? await task.resume(.with { $0.id = id }, timeout: Runtime.requestTimeout)
            throw error
        }
        _ = try await task.resume(.with { $0.id = id }, timeout: Runtime.requestTimeout)
    }

    private func start(_ options: CreateOptions, from image: String) async throws {
        var options = options
        options.checkpoint = image
        let new = try await NewContainer(options, self)
        do {
            try await new.create()
            try await new.start()
        } catch {
            await new.abandon()
            throw error
        }
    }
}
