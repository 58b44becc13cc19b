import CLinux
import Glibc
import Hypervisor
import LinuxSystem
import Logging
import Synchronization

/// A mount of the host that a container gets.
struct ShareMount: Sendable {
    let mount: DetachedMount
    /// The share that the mount is part of.
    let share: SandboxPlan.Share

    /// Where the agent makes this mount available.
    var guestPath: String { share.guestPath(of: mount.path) }
}

extension SandboxPlan.Share {
    /// Where in the guest a mount of its tree is.
    ///
    /// - Parameter path: below its first mount; empty: that one.
    func guestPath(of path: String) -> String { path.isEmpty ? mountPoint : "\(mountPoint)/\(path)" }
}

/// What the agent is to mount of the file device.
struct ShareStorage: Sendable, Equatable {
    /// The share's path in the device: `FILESYSTEM/ENTRY`.
    var name: String
    var mountPoint: String
    /// Below the mount point; empty: the mount point itself.
    var path: String
    var isReadOnly: Bool
    /// Other paths in the guest by which the share is known already.
    var otherPaths: [String]
    /// Whether what is mounted below it later appears in the container too.
    var propagates = false
}

extension SandboxPlan.Container {
    /// Clones all mounts of the host that the container sees. Nothing is mounted on the host.
    ///
    /// - Parameter rootfs: the mounts that make its root file system, where that is not one of disks; nil: it is where the plan says.
    /// - Throws: when a file tree is gone.
    func cloneShares(_ rootfs: RootMounts?) async throws -> [ShareMount] {
        let root = self.root == nil ? try await rootfs?.tree() : nil
        return try await onThread("shares") {
            var mounts: [ShareMount] = []
            for share in shares {
                let isRoot = share.mountPoint == spec.root?.path
                if isRoot { try makeMountPoints(root, share.source) }
                let source = root.flatMap { isRoot ? TreeSource.open($0) : nil } ?? .path(share.source)
                mounts += try DetachedMount.clone(
                    source, all: share.mounts == .all, readOnly: share.readOnly, ids: share.ids
                ).map { ShareMount(mount: $0, share: share) }
            }
            return mounts
        }
    }

    private func makeMountPoints(_ root: SharedDescriptor?, _ path: String) throws {
        if let root { return makeMountPoints(root: root.raw) }
        let root = SharedDescriptor(try OwnedDescriptor.open(path, martlet_O_PATH | O_DIRECTORY))
        withExtendedLifetime(root) { makeMountPoints(root: root.raw) }
    }
}

/// What of the host the pod's file device serves.
///
/// Each mount of the host that a container gets is a share of its own, so that the guest has the same mounts as the host. A
/// directory or file that several containers mount, or one several times, is one share: it is counted. Thus one file of
/// the host is one inode in the guest.
///
/// Safe to use from several threads; waits for the file device.
final class PodShares: Sendable {
    /// A mount of a container.
    private struct Use {
        var share: String
        var fileSystem: String
        /// The path of the share's root in its file system; nil where that is not known.
        var root: String?
        /// Where the agent has mounted it.
        var guestPath: String
        var isReadOnly: Bool
        /// The mount on the host; nil where that is not known.
        var original: MountEntry.Identity?
        /// Whether it came after the container was made.
        var isLater = false
    }

    private struct State {
        /// How many mounts of containers use a share, by its name.
        var counts: [String: Int] = [:]
        /// The mounts of a container, by its id.
        var containers: [String: [Use]] = [:]
    }

    private let state = Mutex(State())
    private let machine: any VirtualMachine
    private let logger: Logger
    /// How often the machine has been restored. Names of shares begin with it: the guest knows others from before.
    let generation: Int

    init(_ machine: any VirtualMachine, logger: Logger) {
        self.machine = machine
        self.logger = logger
        generation = 0
    }

    /// Those of a restored machine, whose file device has them already.
    init(_ machine: any VirtualMachine, _ restored: RestoredPod, logger: Logger) {
        self.machine = machine
        self.logger = logger
        generation = restored.checkpoint.generation + 1
        state.withLock { state in
            for member in restored.members {
                for share in member.saved.shares {
                    state.counts[share.name, default: 0] += 1
                    state.containers[member.plan.id, default: []].append(
                        Use(
                            share: share.name, fileSystem: share.fileSystem, root: share.root,
                            guestPath: share.guestPath, isReadOnly: share.isReadOnly))
                }
            }
        }
    }

    /// A container's, for a checkpoint.
    func saved(_ container: String) -> [Checkpoint.Share] {
        state.withLock { state in
            (state.containers[container] ?? []).map {
                Checkpoint.Share(
                    name: $0.share, guestPath: $0.guestPath, isReadOnly: $0.isReadOnly, fileSystem: $0.fileSystem,
                    root: $0.root)
            }
        }
    }

    /// Hands the mounts of a container to the file device. Those handed over before a failure stay until `remove`.
    ///
    /// - Parameter isLater: the container is there already.
    /// - Returns: what the agent is to mount, in this order.
    /// - Throws: when the file device does not take one.
    func add(
        _ mounts: [ShareMount], container: String, isLater: Bool = false
    ) async throws -> [ShareStorage] {
        try await onThread("add shares") { [self] in
            try mounts.map { entry in
                let (mount, share) = (entry.mount, entry.share)
                let (name, others) = try add(
                    mount, at: entry.guestPath, container: container, isLater: isLater)
                return ShareStorage(
                    name: name, mountPoint: share.mountPoint, path: mount.path, isReadOnly: mount.isReadOnly,
                    otherPaths: others, propagates: share.propagates)
            }
        }
    }

    /// - Returns: the share's name, and the paths in the guest by which it is known already.
    private func add(
        _ mount: DetachedMount, at guestPath: String, container: String, isLater: Bool
    ) throws -> (name: String, others: [String]) {
        // The file device decides by share who may write, so one that is mounted both ways is two.
        let name =
            (generation > 0 ? "\(generation)." : "") + "\(mount.fileSystem)/\(mount.file)"
            + (mount.isReadOnly ? ".ro" : "")
        return try state.withLock { state in
            if state.counts[name] == nil {
                try machine.addShare(name: name, tree: mount.tree.raw, readOnly: mount.isReadOnly)
            }
            state.counts[name, default: 0] += 1
            let others = state.containers.values.joined().compactMap { use -> String? in
                guard use.fileSystem == mount.fileSystem, let above = use.root, let root = mount.root else {
                    return nil
                }
                let prefix = above == "/" ? "/" : above + "/"
                guard root != above, root.utf8.starts(with: prefix.utf8) else { return nil }
                return "\(use.guestPath)/" + String(decoding: root.utf8.dropFirst(prefix.utf8.count), as: UTF8.self)
            }
            let use = Use(
                share: name, fileSystem: mount.fileSystem, root: mount.root, guestPath: guestPath,
                isReadOnly: mount.isReadOnly, original: mount.original, isLater: isLater)
            state.containers[container, default: []].append(use)
            return (name, others)
        }
    }

    /// Takes away what only this container used.
    func remove(_ container: String) async {
        _ = try? await onThread("remove shares") { [self] in release(container) }
    }

    private func release(_ container: String) {
        state.withLock { state in
            for use in state.containers.removeValue(forKey: container) ?? [] { release(use.share, &state) }
        }
    }

    private func release(_ name: String, _ state: inout State) {
        let count = (state.counts[name] ?? 1) - 1
        state.counts[name] = count > 0 ? count : nil
        if count > 0 { return }
        do { try machine.removeShare(name: name) } catch { logger.debug("remove share \(name): \(error)") }
    }
}

/// Mounts of the host that come and go while a container has the share that they are in.
extension PodShares {
    /// A mount of a share's tree.
    struct Mount: Equatable {
        /// Below the share's mount point; empty: at it.
        var path: String
        /// The mount on the host; nil where that is not known.
        var original: MountEntry.Identity?
        /// Whether it came after the container was made.
        var isLater: Bool
    }

    /// What a container has of a share's tree, the mount of its source first.
    func mounts(_ container: String, at mountPoint: String) -> [Mount] {
        state.withLock { state in
            (state.containers[container] ?? []).compactMap { use in
                let isTop = use.guestPath == mountPoint
                guard isTop || use.guestPath.utf8.starts(with: "\(mountPoint)/".utf8) else { return nil }
                let path = use.guestPath.utf8.dropFirst(mountPoint.utf8.count + (isTop ? 0 : 1))
                return Mount(
                    path: String(decoding: path, as: UTF8.self), original: use.original, isLater: use.isLater)
            }
        }
    }

    /// Says which mount of the host a container has at a path of the guest.
    func identify(_ container: String, at guestPath: String, as original: MountEntry.Identity) {
        state.withLock { state in
            let index = state.containers[container]?.lastIndex { $0.guestPath == guestPath && $0.original == nil }
            if let index { state.containers[container]?[index].original = original }
        }
    }

    /// Takes away what a container has at a path of the guest, the last that came there.
    func remove(_ container: String, at guestPath: String) async {
        _ = try? await onThread("remove share") { [self] in
            state.withLock { state in
                guard let index = state.containers[container]?.lastIndex(where: { $0.guestPath == guestPath }),
                    let use = state.containers[container]?.remove(at: index)
                else { return }
                release(use.share, &state)
            }
        }
    }
}
