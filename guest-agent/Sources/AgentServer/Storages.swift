import AgentAPI
import AgentContract
import CLinux
import ContainerPlan
import Glibc
import GuestSystem
import LinuxSystem

/// The file trees of a container, mounted where its specification expects them; taken away by `unmountAll`.
struct Storages: Sendable {
    private var mountPoints: [String] = []

    /// Mounts one.
    ///
    /// - Parameters:
    ///   - shares: the directory of the file device's shares.
    ///   - volumes: those that are in the guest's memory.
    mutating func mount(_ storage: AgentStorage, shares: String, volumes: Volumes) throws(AgentFailure) {
        let what = "mount \(storage.driver) \(storage.source) on \(storage.mountPoint)"
        let driver = try during(what) { [storage] in
            guard let driver = StorageDriver(rawValue: storage.driver) else {
                throw AgentFailure(.unimplemented, "no storage driver of that name")
            }
            // By bytes: a string's `contains("/")` is Foundation's here, and 44 MB come along with it.
            let isPath = storage.source.utf8.contains(UInt8(ascii: "/"))
            guard !storage.source.isEmpty, storage.source != ".", storage.source != "..", !isPath else {
                throw AgentFailure(.invalidArgument, "not the name of a share, disk or volume")
            }
            let parts = storage.mountPoint.split(separator: "/", omittingEmptySubsequences: false)
            guard storage.mountPoint.hasPrefix("\(GuestPath.base)/"), !parts.contains(".."), parts.last != "" else {
                throw AgentFailure(.invalidArgument, "the mount point is not below \(GuestPath.base)")
            }
            return driver
        }
        if driver == .block {
            let options = try MountOptions(storage.options)
            try during(what) { [storage] in
                try Disks.mount(serial: storage.source, type: storage.fstype, options, at: storage.mountPoint)
            }
            mountPoints.append(storage.mountPoint)
            return
        }
        try during(what) {
            let tree =
                driver == .volume
                ? try volumes.find(storage.source).tree(storage.path)
                : try Self.share(shares + "/" + storage.source)
            try attach(tree, storage.source, at: storage.mountPoint, readOnly: storage.readonly)
        }
    }

    private static func share(_ path: String) throws(SystemError) -> SharedDescriptor {
        let flags = UInt32(OPEN_TREE_CLONE) | UInt32(O_CLOEXEC) | UInt32(AT_RECURSIVE)
        return SharedDescriptor(
            OwnedDescriptor(owning: try check("open_tree", path, martlet_open_tree(AT_FDCWD, path, flags))))
    }

    private mutating func attach(
        _ tree: SharedDescriptor, _ name: String, at target: String, readOnly: Bool
    ) throws(SystemError) {
        if readOnly {
            try check(
                "mount_setattr", name,
                martlet_mount_setattr(tree.raw, "", UInt32(AT_EMPTY_PATH), UInt64(MOUNT_ATTR_RDONLY), 0, 0))
        }
        var information = stat()
        try check("fstat", name, fstat(tree.raw, &information))
        if information.st_mode & S_IFMT == S_IFDIR {
            try makeDirectories(target)
        } else {
            if let slash = target.lastIndex(of: "/") { try makeDirectories(String(target[..<slash])) }
            _ = try OwnedDescriptor.open(target, O_CREAT | O_WRONLY, mode: 0o600)
        }
        try check(
            "move_mount", target, martlet_move_mount(tree.raw, "", AT_FDCWD, target, UInt32(MOVE_MOUNT_F_EMPTY_PATH)))
        mountPoints.append(target)
    }

    /// Takes all of them away, the last one first, and what was made to mount them on.
    mutating func unmountAll() throws(SystemError) {
        while let target = mountPoints.last {
            if umount2(target, Int32(MNT_DETACH)) != 0, Glibc.errno != EINVAL, Glibc.errno != ENOENT {
                throw SystemError.last("umount", target)
            }
            mountPoints.removeLast()
            if rmdir(target) != 0, Glibc.errno == ENOTDIR { unlink(target) }
            removeEmptyDirectories(above: target)
        }
    }

    /// The directories that were made for this container alone, up to those that all containers share.
    private func removeEmptyDirectories(above path: String) {
        var path = path[...]
        while let slash = path.lastIndex(of: "/") {
            path = path[..<slash]
            if path == GuestPath.base || path == GuestPath.containers || rmdir(String(path)) != 0 { return }
        }
    }
}
