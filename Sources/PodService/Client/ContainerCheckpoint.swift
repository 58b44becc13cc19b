import FoundationEssentials
import Glibc
import LinuxSystem
import OCISpec
import Sandbox
import SwiftProtobuf
import TTRPC
import TaskAPI

/// What `fork` is told.
public struct ForkOptions: Sendable {
    /// Of the container that is forked.
    public var source: String
    /// Of the new one, which outlives the command.
    public var new: CreateOptions

    public init(source: String, new: CreateOptions) { (self.source, self.new) = (source, new) }
}

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
    /// - Throws: what could not be done; the container goes on, and nothing is left of the new one.
    public func fork(_ options: ForkOptions) async throws {
        try requireRoot(for: "fork")
        let copy = BundleCopy(options.new.bundle, hostname: String(options.new.id.prefix(63)))
        let image = "\(root)/.fork-\(options.new.id)-\(getpid())"
        defer { try? FileManager.default.removeItem(atPath: image) }
        do {
            try await asking {
                let container = try await open(options.source)
                let isPaused = try await container.status().state == .paused
                let task = try container.server()
                let id = container.id
                if !isPaused { _ = try await task.pause(.with { $0.id = id }, timeout: Runtime.requestTimeout) }
                do {
                    try await checkpoint(container, to: image, isLeftRunning: true)
                    try await copy.make(of: container.record)
                } catch {
                    if !isPaused { _ = try? await task.resume(.with { $0.id = id }, timeout: Runtime.requestTimeout) }
                    throw error
                }
                if !isPaused { _ = try await task.resume(.with { $0.id = id }, timeout: Runtime.requestTimeout) }
                try await start(options.new, from: image)
            }
        } catch {
            copy.discard()
            throw error
        }
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
