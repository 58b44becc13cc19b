import Glibc
import Hypervisor
import LinuxSystem

/// A share of a container that is open and not yet with the file device.
struct ShareTree: Sendable {
    let share: SandboxPlan.Share
    let tree: SharedDescriptor
}

extension SandboxPlan.Container {
    /// Opens all file trees of the host that the container sees.
    ///
    /// - Parameter rootfs: the mounts that make its root file system; nil: that is where the plan says.
    /// - Returns: detached trees; nothing is mounted on the host.
    func openShares(_ rootfs: RootMounts?) async throws -> [ShareTree] {
        let root = try await rootfs?.tree()
        return try await onThread("shares") {
            try shares.map { share in
                let isRoot = share.mountPoint == spec.root?.path
                let tree = try detachedTree(root.flatMap { isRoot ? .open($0) : nil } ?? .path(share.source))
                if isRoot { makeMountPoints(root: tree.raw) }
                return ShareTree(share: share, tree: SharedDescriptor(tree))
            }
        }
    }
}

extension VirtualMachine {
    /// Hands file trees to the file device.
    func addShares(_ trees: [ShareTree]) async throws {
        if trees.isEmpty { return }
        try await onThread("add shares") {
            for tree in trees {
                try addShare(name: tree.share.name, tree: tree.tree.raw, readOnly: tree.share.readOnly)
            }
        }
    }

    /// Takes them away again.
    ///
    /// - Returns: why some are still there.
    func removeShares(_ shares: [SandboxPlan.Share]) async -> [any Error] {
        let errors = try? await onThread("remove shares") {
            shares.compactMap { share -> (any Error)? in
                do { try removeShare(name: share.name) } catch { return error }
                return nil
            }
        }
        return errors ?? []
    }
}
