import CLinux
import Glibc
import LinuxSystem

/// What a share shows: a path, or a directory that is open already.
enum TreeSource {
    case path(String)
    case open(SharedDescriptor)
}

/// A mount of a file tree and all mounts below it that is attached nowhere, for a device process to serve: it vanishes
/// with its last descriptor. Set-user-id bits and device nodes mean nothing in it on the host, and mounts made later on
/// the host do not appear in it.
///
/// Source: open_tree(2), mount_setattr(2).
func detachedTree(_ source: TreeSource) throws(SystemError) -> OwnedDescriptor {
    let flags = UInt32(OPEN_TREE_CLONE) | UInt32(bitPattern: O_CLOEXEC) | UInt32(AT_RECURSIVE)
    let name: String
    let tree: OwnedDescriptor
    switch source {
    case .path(let path):
        name = path
        tree = OwnedDescriptor(owning: try check("open_tree", path, martlet_open_tree(AT_FDCWD, path, flags)))
    case .open(let directory):
        // A detached tree itself: it can't be cloned, and need not be.
        name = "rootfs"
        tree = try directory.duplicate()
    }
    try check(
        "mount_setattr", name,
        martlet_mount_setattr(
            tree.raw, "", UInt32(AT_EMPTY_PATH | AT_RECURSIVE), UInt64(MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV), 0,
            UInt64(MARTLET_MS_PRIVATE)))
    return tree
}
