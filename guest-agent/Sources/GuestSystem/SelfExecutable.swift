import CLinux
import Glibc
public import LinuxSystem

/// The agent's own program, as a descriptor to execute container inits from.
///
/// It lies on a read-only mount of its own: a container's root could otherwise open a container init's /proc/PID/exe for writing
/// and so put its own program in the place of the agent's.
public final class SelfExecutable: Sendable {
    private let mount: SharedDescriptor?
    public let descriptor: SharedDescriptor

    public init() throws(SystemError) {
        let path = "/proc/self/exe"
        // As a process without the right to mount, in a test, there is no container either.
        mount = try? Self.readOnlyMount(of: path)
        let source = mount.map { "/proc/self/fd/\($0.raw)" } ?? path
        let raw = try check("open", path, open(source, O_RDONLY | O_CLOEXEC))
        descriptor = SharedDescriptor(OwnedDescriptor(owning: raw))
    }

    private static func readOnlyMount(of path: String) throws(SystemError) -> SharedDescriptor {
        let tree = SharedDescriptor(
            OwnedDescriptor(
                owning: try check(
                    "open_tree", path, martlet_open_tree(AT_FDCWD, path, UInt32(OPEN_TREE_CLONE) | UInt32(O_CLOEXEC)))))
        let flags = UInt32(AT_EMPTY_PATH)
        try check("mount_setattr", path, martlet_mount_setattr(tree.raw, "", flags, UInt64(MOUNT_ATTR_RDONLY), 0, 0))
        return tree
    }
}
