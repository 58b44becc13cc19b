import CLinux
import Glibc
import LinuxSystem

/// A mount of the host, cloned and attached nowhere, for a device process to serve: it vanishes with its last descriptor.
/// Set-user-id bits and device nodes mean nothing in it on the host, and mounts made later on the host do not appear in it
/// (`MountPropagation`).
struct DetachedMount {
    var tree: SharedDescriptor
    /// Where it is below the first mount of the tree that it belongs to, relative; empty: it is the first.
    var path: String
    /// A name for the file system, the same for all its mounts.
    var fileSystem: String
    /// A name for the directory or file in its file system.
    var file: String
    /// On the host, or since it was made so.
    var isReadOnly: Bool
    /// The path of the directory or file in its file system; nil where it is not known.
    var root: String?
    /// The mount that it is a clone of; nil: that is not one of this process's mount namespace.
    var original: MountEntry.Identity?
}

/// Where a share's mounts come from.
enum TreeSource {
    case path(String)
    /// A tree that is detached already.
    case open(SharedDescriptor)
}

extension DetachedMount {
    /// Clones the mount of a directory or file, and each mount below it.
    ///
    /// - Parameters:
    ///   - all: take the mounts below too. What is hidden by another mount is left out, as is what may not be bound
    ///     (MS_UNBINDABLE).
    ///   - readOnly: which mounts become read-only, beside those that are it on the host.
    ///   - ids: whose files get other ids; nil: none.
    /// - Throws: when the path is gone, or may not be bound.
    ///
    /// Source: open_tree(2), mount_setattr(2), statx(2).
    static func clone(
        _ source: TreeSource, all: Bool, readOnly: SandboxPlan.Share.Extent, ids: SandboxPlan.ShareIDs? = nil
    ) throws(SystemError) -> [DetachedMount] {
        let path: String
        switch source {
        case .open(let directory):
            // It can't be cloned, and need not be.
            return [try detached(directory, readOnly: readOnly != .none)]
        case .path(let name): path = name
        }
        let table = try MountEntry.all()
        guard let top = try clone(path, below: "", table, isTop: true, readOnly: readOnly != .none, ids?.map) else {
            return []
        }
        var mounts = [top]
        if !all { return mounts }
        for (entry, relative) in below(path, in: table) where !mounts.contains(where: { $0.path == relative }) {
            if let mount = try clone(
                entry.mountPoint, below: relative, [entry], readOnly: readOnly == .all, ids?.mapBelow)
            {
                mounts.append(mount)
            }
        }
        return mounts
    }

    /// Clones a mount that the host has made below a share's source, or over it.
    ///
    /// - Parameter relative: where it is below the source.
    /// - Returns: nil where it is hidden, gone, or may not be bound.
    static func clone(
        _ entry: MountEntry, below relative: String, of share: SandboxPlan.Share
    ) throws(SystemError) -> DetachedMount? {
        try clone(entry.mountPoint, below: relative, [entry], readOnly: share.readOnly == .all, share.ids?.mapBelow)
    }

    /// The mounts below a path and over it, each after the one that it is in, and where they are below it.
    static func below(_ path: String, in table: [MountEntry]) -> [(entry: MountEntry, relative: String)] {
        let prefix = path == "/" ? "/" : path + "/"
        let depth = { (relative: String) in relative.isEmpty ? 0 : relative.utf8.count { $0 == UInt8(ascii: "/") } + 1 }
        return table.compactMap { entry -> (entry: MountEntry, relative: String)? in
            if entry.mountPoint == path { return (entry, "") }
            guard entry.mountPoint.utf8.starts(with: prefix.utf8) else { return nil }
            return (entry, String(decoding: entry.mountPoint.utf8.dropFirst(prefix.utf8.count), as: UTF8.self))
        }.sorted { depth($0.relative) < depth($1.relative) }
    }

    /// - Parameters:
    ///   - table: the mounts that `path` may lie on; for another mount than the first one just that one.
    ///   - isTop: whether it is the first one of a share.
    /// - Returns: nil for another one that is hidden, gone or may not be bound.
    private static func clone(
        _ path: String, below relative: String, _ table: [MountEntry], isTop: Bool = false, readOnly: Bool,
        _ ids: MappedIDs?
    ) throws(SystemError) -> DetachedMount? {
        let raw = Glibc.open(path, martlet_O_PATH | O_CLOEXEC | O_NOFOLLOW)
        if raw < 0, !isTop { return nil }
        let file = OwnedDescriptor(owning: try check("open", path, raw))
        guard !KernelFiles.are(at: file.raw) else { throw KernelFiles.refusal(path) }
        let status = try status(of: file.raw, path)
        let entry = table.first { $0.id == status.stx_mnt_id }
        if entry == nil, !isTop { return nil }
        let flags = UInt32(OPEN_TREE_CLONE) | UInt32(bitPattern: O_CLOEXEC) | UInt32(AT_EMPTY_PATH)
        let clone = martlet_open_tree(file.raw, "", flags)
        if clone < 0, errno == EINVAL, !isTop { return nil }
        let tree = SharedDescriptor(OwnedDescriptor(owning: try check("open_tree", path, clone)))
        let isReadOnly = readOnly || entry?.isReadOnly == true
        try restrict(tree, path, readOnly: isReadOnly)
        try ids?.apply(to: tree, path)
        // A file with other ids is another inode in the guest.
        let fileSystem = (entry?.device ?? device(status)) + (ids.map { "-\($0.name)" } ?? "")
        return DetachedMount(
            tree: tree, path: relative, fileSystem: fileSystem, file: name(status, entry),
            isReadOnly: isReadOnly,
            root: entry.map {
                join($0.root, String(decoding: path.utf8.dropFirst($0.mountPoint.utf8.count), as: UTF8.self))
            }, original: entry?.identity)
    }

    private static func detached(_ tree: SharedDescriptor, readOnly: Bool) throws(SystemError) -> DetachedMount {
        let status = try status(of: tree.raw, "rootfs")
        try restrict(tree, "rootfs", readOnly: readOnly)
        return DetachedMount(
            tree: tree, path: "", fileSystem: device(status), file: name(status, nil), isReadOnly: readOnly, root: nil,
            original: nil)
    }

    private static func restrict(_ tree: SharedDescriptor, _ name: String, readOnly: Bool) throws(SystemError) {
        let attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
        try check(
            "mount_setattr", name,
            martlet_mount_setattr(
                tree.raw, "", UInt32(AT_EMPTY_PATH | AT_RECURSIVE), UInt64(attributes), 0, UInt64(MARTLET_MS_PRIVATE)))
        guard readOnly else { return }
        try check(
            "mount_setattr", name,
            martlet_mount_setattr(tree.raw, "", UInt32(AT_EMPTY_PATH), UInt64(MOUNT_ATTR_RDONLY), 0, 0))
    }

    private static func status(of file: Int32, _ name: String) throws(SystemError) -> CLinux.statx {
        var status = CLinux.statx()
        let mask = UInt32(0x100 | 0x1000)  // STATX_INO | STATX_MNT_ID
        try check("statx", name, martlet_statx(file, "", martlet_AT_EMPTY_PATH, mask, &status))
        return status
    }

    private static func device(_ status: CLinux.statx) -> String { "\(status.stx_dev_major):\(status.stx_dev_minor)" }

    /// The inode number, with the device where the file system has several (btrfs).
    private static func name(_ status: CLinux.statx, _ entry: MountEntry?) -> String {
        let device = device(status)
        return entry.map { $0.device == device } ?? true ? "\(status.stx_ino)" : "\(device)-\(status.stx_ino)"
    }

    private static func join(_ root: String, _ rest: String) -> String {
        let parts = (root.split(separator: "/") + rest.split(separator: "/")).map(String.init)
        return "/" + parts.joined(separator: "/")
    }
}
