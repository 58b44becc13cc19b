import AgentAPI
import LinuxSystem
import TTRPC

/// Files that are to be copied out of or into a container, as a tar archive.
package struct FileCopy: Sendable, Equatable {
    package enum Direction: Sendable, Equatable {
        /// Out of the container. `followsLink`: a symbolic link at the path is followed. `isShallow`: of a directory, only its own entry.
        case pack(followsLink: Bool = false, isShallow: Bool = false)
        /// Into the container. `keepsOwners`: files get the owners that the archive names; otherwise they are root's.
        case unpack(keepsOwners: Bool = false, Rule)
    }

    /// How the path is meant into which an archive is unpacked.
    package enum Rule: Sendable, Equatable {
        /// As cp(1) does with the archive's first entry.
        case place
        /// A directory that exists.
        case directory
        /// A directory, which is made where it is missing.
        case madeDirectory
    }

    package var container: String
    /// Absolute, as the container sees it.
    package var path: String
    package var direction: Direction

    package init(container: String, path: String, _ direction: Direction) {
        (self.container, self.path, self.direction) = (container, path, direction)
    }
}

/// Files between a container and the host.
extension Pod {
    /// Copies. Suspends until all of the archive has gone to `stream`, or was taken from it. When the calling task is cancelled, or whoever
    /// is at the stream's other end goes, it ends.
    ///
    /// - Parameter stream: a pipe, a socket or a file, which the archive goes to, or comes from.
    /// - Throws: `TTRPCError` of code `notFound` where nothing is at the path.
    package func copy(_ copy: FileCopy, _ stream: SharedDescriptor) async throws {
        try await withRunning { pod in
            let container = try find(copy.container)
            guard [.created, .running].contains(container.first.phase) else {
                throw SandboxError.wrongState(
                    "container \(copy.container) is \(container.first.phase.name), neither created nor running")
            }
            if streamsAreDetached { throw SandboxError.wrongState("the streams of the pod's processes are detached") }
            copies += 1
            defer { copies -= 1 }
            let (number, connection) = try await connectStream(pod)
            let relay = try StreamRelay(
                name: "copy", engine: stream, guest: connection, direction: copy.isOut ? .fromGuest : .toGuest)
            defer { relay.cancel() }
            try await withTaskCancellationHandler {
                try await pod.agent.copyFiles(copy, stream: number)
                if copy.isOut { await relay.finish() }
            } onCancel: {
                relay.cancel()
            }
        }
    }
}

extension FileCopy {
    /// Whether it is out of the container.
    package var isOut: Bool { if case .pack = direction { true } else { false } }
}

extension GuestAgent {
    /// Has the agent copy files. There is no deadline: the call ends with the stream, or with the connection, which the heartbeat
    /// watches.
    ///
    /// - Parameter number: of the archive's stream.
    func copyFiles(_ copy: FileCopy, stream number: UInt64) async throws {
        _ = try await client.copyFiles(
            .with { request in
                request.containerID = name(copy.container)
                request.path = copy.path
                request.stream = number
                switch copy.direction {
                case .pack(let followsLink, let isShallow):
                    request.pack = .with { ($0.followsLink, $0.isShallow) = (followsLink, isShallow) }
                case .unpack(let keepsOwners, let rule):
                    request.unpack = .with { ($0.keepsOwners, $0.rule) = (keepsOwners, .init(rule)) }
                }
            }, timeout: TTRPCClient.noTimeout)
    }
}

extension AgentUnpackFiles.Rule {
    fileprivate init(_ rule: FileCopy.Rule) {
        switch rule {
        case .place: self = .place
        case .directory: self = .directory
        case .madeDirectory: self = .madeDirectory
        }
    }
}
