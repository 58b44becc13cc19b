import AgentAPI
import CLinux
import Glibc
import Hypervisor
import LinuxSystem
import Logging
import Synchronization

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

    init(_ machine: any VirtualMachine, logger: Logger) {
        self.machine = machine
        self.logger = logger
    }

    /// Hands the file trees of a container to the file device. Those handed over before a failure stay until `remove`.
    ///
    /// - Parameter root: the root file system's tree, where it is not at the path that the plan says.
    /// - Returns: what the agent is to mount, in this order.
    /// - Throws: when a tree is gone, or the file device does not take it.
    func add(_ plan: SandboxPlan.Container, root: SharedDescriptor?) throws -> [AgentStorage] {
        var storages: [AgentStorage] = []
        for share in plan.shares {
            let isRoot = share.mountPoint == plan.spec.root?.path
            if isRoot { try makeMountPoints(plan, root, share.source) }
            let source = root.flatMap { isRoot ? TreeSource.open($0) : nil } ?? .path(share.source)
            for mount in try DetachedMount.clone(source, all: share.mounts == .all, readOnly: share.readOnly) {
                let guestPath = mount.path.isEmpty ? share.mountPoint : "\(share.mountPoint)/\(mount.path)"
                let (name, others) = try add(mount, at: guestPath, container: plan.id)
                storages.append(
                    .with {
                        $0.driver = "share"
                        $0.source = name
                        $0.mountPoint = share.mountPoint
                        $0.path = mount.path
                        $0.readonly = mount.isReadOnly
                        $0.options = others
                    })
            }
        }
        return storages
    }

    private func makeMountPoints(_ plan: SandboxPlan.Container, _ root: SharedDescriptor?, _ path: String) throws {
        if let root { return plan.makeMountPoints(root: root.raw) }
        plan.makeMountPoints(root: try OwnedDescriptor.open(path, martlet_O_PATH | O_DIRECTORY).raw)
    }

    /// - Returns: the share's name, and the paths in the guest by which it is known already.
    private func add(
        _ mount: DetachedMount, at guestPath: String, container: String
    ) throws -> (name: String, others: [String]) {
        // The file device decides by share who may write, so one that is mounted both ways is two.
        let name = "\(mount.fileSystem)/\(mount.file)" + (mount.isReadOnly ? ".ro" : "")
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
            let use = Use(share: name, fileSystem: mount.fileSystem, root: mount.root, guestPath: guestPath)
            state.containers[container, default: []].append(use)
            return (name, others)
        }
    }

    /// Takes away what only this container used.
    func remove(_ container: String) {
        state.withLock { state in
            for name in state.containers.removeValue(forKey: container)?.map(\.share) ?? [] {
                let count = (state.counts[name] ?? 1) - 1
                state.counts[name] = count > 0 ? count : nil
                if count > 0 { continue }
                do { try machine.removeShare(name: name) } catch { logger.debug("remove share \(name): \(error)") }
            }
        }
    }
}
