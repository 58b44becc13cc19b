import LinuxSystem
import OCISpec
import Sandbox
import TTRPC
import TaskAPI

/// What `pod restore` is told.
public struct PodRestoreOptions: Sendable {
    /// The checkpoint's directory, an absolute path.
    public var checkpoint: String
    /// The containers' ids from now on, by those that they had; one that is missing keeps its own.
    public var ids: [String: String] = [:]
    /// The directories of their bundles, absolute paths, by the ids that they had.
    public var bundles: [String: String] = [:]

    public init(checkpoint: String) { self.checkpoint = checkpoint }
}

extension Runtime {
    /// `pod checkpoint`: writes a running pod with all of its containers to a directory.
    ///
    /// - Parameters:
    ///   - name: the pod's id, or the beginning of it.
    ///   - path: of the directory, absolute; made where it is not there.
    ///   - isLeftRunning: the containers go on; else they have ended, and those of the command line are deleted.
    public func checkpoint(pod name: String, to path: String, isLeftRunning: Bool) async throws {
        try requireRoot(for: "pod checkpoint")
        let pod = try PodList.find(name, in: PodList.all(root: root))
        guard pod.isRunning else { throw SandboxError.wrongState("pod \(pod.id) is not running") }
        try await asking {
            let inspection = InspectionServiceClient(try await TTRPCClient(unixPath: pod.socket))
            let request = PodCheckpointRequest.with { ($0.path, $0.leaveRunning) = (path, isLeftRunning) }
            _ = try await inspection.checkpoint(request, timeout: Runtime.requestTimeout)
        }
        if isLeftRunning { return }
        for id in records.all() where records.read(id)?.podPath == pod.directory {
            try await delete(id, isForced: true)
        }
    }

    /// `pod restore`: has a pod go on from a checkpoint with all of its containers, which outlive the command.
    ///
    /// - Returns: the containers' ids.
    /// - Throws: what does not fit, or failed; nothing is left of the pod then.
    public func restorePod(_ options: PodRestoreOptions) async throws -> [String] {
        try requireRoot(for: "pod restore")
        let containers = try options.containers()
        var made: [NewContainer] = []
        do {
            try await asking {
                for container in containers {
                    var create = CreateOptions(
                        id: container.id, bundle: container.bundle, checkpoint: options.checkpoint, isDetached: true)
                    create.place = made.first.map { .pod(of: $0.record) } ?? .ownPod
                    made.append(try await NewContainer(create, self))
                    if made.count == 1 { try await made[0].prepareRestore(options.checkpoint, containers) }
                    try await made[made.count - 1].create()
                }
                for container in made { try await container.start() }
            }
        } catch {
            for container in made.reversed() { await container.abandon() }
            throw error
        }
        return containers.map(\.id)
    }
}

extension PodRestoreOptions {
    /// The checkpoint's containers, in its order.
    ///
    /// - Throws: `SandboxError.invalid` where an id or a bundle is of a container that the checkpoint does not have, or a container has no
    ///   bundle: whoever wrote the checkpoint does not choose what of this host its containers get.
    fileprivate func containers() throws -> [PodRestoredContainer] {
        let saved = try CheckpointSummary(directory: checkpoint).containers
        for name in Set(ids.keys).union(bundles.keys).sorted() where !saved.contains(where: { $0.id == name }) {
            throw SandboxError.invalid("container \(name): not in the checkpoint, which has \(saved.map(\.id))")
        }
        return try saved.map { container in
            guard let bundle = bundles[container.id] else {
                throw SandboxError.invalid(
                    "container \(container.id): no bundle (--bundle \(container.id)=DIRECTORY; it had \(printable(container.bundle)))"
                )
            }
            return .with {
                $0.name = container.id
                $0.id = ids[container.id] ?? container.id
                $0.bundle = bundle
            }
        }
    }
}

extension NewContainer {
    /// Tells the pod's server what the pod goes on from.
    fileprivate func prepareRestore(_ checkpoint: String, _ containers: [PodRestoredContainer]) async throws {
        let request = PodPrepareRestoreRequest.with { ($0.path, $0.containers) = (checkpoint, containers) }
        _ = try await InspectionServiceClient(task.client).prepareRestore(request, timeout: Runtime.requestTimeout)
    }
}
