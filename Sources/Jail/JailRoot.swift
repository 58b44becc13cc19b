import CLinux
import Glibc
import LinuxSystem

/// Makes the root directory of a jail.
enum JailRoot {
    /// A detached mount.
    static func make(_ root: JailPlan.Root) throws(SystemError) -> SharedDescriptor {
        switch root {
        case .empty, .container:
            SharedDescriptor(OwnedDescriptor(owning: try check("mount", "empty tmpfs", martlet_empty_directory())))
        case .only(let paths): try make(of: paths)
        }
    }

    private static let flags = MountFlag.noSetID | MountFlag.noExecution

    /// What lies at a path of the host.
    private struct Entry {
        var path: String
        var tree: SharedDescriptor
        var facts: stat
        var isDirectory: Bool { facts.st_mode & S_IFMT == S_IFDIR }
        /// A file that only its owner may read, such as a distribution's kernel: the process in the jail gets a copy.
        var isCopied: Bool { facts.st_mode & S_IFMT == S_IFREG && facts.st_mode & S_IROTH == 0 }
    }

    /// A tmpfs with clones of files and directories of the host, all of them read-only. The process has a mount namespace of its
    /// own already; the tmpfs is made on a directory that is always there, and what lies below stays as it is.
    private static func make(of paths: [String]) throws(SystemError) -> SharedDescriptor {
        var (entries, links) = try find(paths)
        // What is in a directory that is there already comes with it.
        let directories = entries.filter(\.isDirectory).map { $0.path + "/" }
        entries.removeAll { entry in directories.contains(where: entry.path.hasPrefix) }
        let copied = entries.filter(\.isCopied).reduce(1 << 20) { $0 + Int($1.facts.st_size) + 4096 }
        let place = "/proc"
        try check("mount", "private", mount(nil, "/", nil, MountFlag.recursive | MountFlag.isPrivate, nil))
        try check("mount", "tmpfs", mount("tmpfs", place, "tmpfs", flags, "size=\(copied),mode=0555"))
        for entry in entries { try make(entry, at: place + entry.path) }
        for (path, target) in links {
            try makeDirectories(parent(of: place + path), mode: 0o555)
            try check("symlink", path, symlink(target, place + path))
        }
        try check(
            "mount", "read-only",
            mount(nil, place, nil, MountFlag.remount | MountFlag.bind | MountFlag.readOnly | flags, nil))
        return try cloneTree(place, isRecursive: true)
    }

    /// - Returns: what lies at the paths, and those that are symbolic links to directories, with their targets.
    private static func find(
        _ paths: [String]
    ) throws(SystemError) -> ([Entry], [(path: String, target: String)]) {
        var entries: [Entry] = []
        var links: [(path: String, target: String)] = []
        for path in paths {
            var facts = stat()
            try check("stat", path, stat(path, &facts))
            if facts.st_mode & S_IFMT == S_IFDIR, let target = symbolicLink(path) {
                links.append((path, target))
            } else {
                entries.append(Entry(path: path, tree: try cloneTree(path, isRecursive: true), facts: facts))
            }
        }
        return (entries, links)
    }

    private static func make(_ entry: Entry, at target: String) throws(SystemError) {
        try makeDirectories(entry.isDirectory ? target : parent(of: target), mode: 0o555)
        if entry.isCopied { return try copy(entry, to: target) }
        // The host's node may be root's alone: the jail has one that its user may open.
        if entry.facts.st_mode & S_IFMT == S_IFCHR {
            try check("mknod", target, mknod(target, S_IFCHR, entry.facts.st_rdev))
            try check("chmod", target, chmod(target, 0o666))
            return
        }
        if !entry.isDirectory { _ = try OwnedDescriptor.open(target, O_CREAT | O_WRONLY, mode: 0o444) }
        try check(
            "move_mount", target,
            martlet_move_mount(entry.tree.raw, "", AT_FDCWD, target, UInt32(MOVE_MOUNT_F_EMPTY_PATH)))
        let attributes = UInt64(MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
        try check(
            "mount_setattr", target, martlet_mount_setattr(AT_FDCWD, target, UInt32(AT_RECURSIVE), attributes, 0, 0))
    }

    private static func copy(_ entry: Entry, to target: String) throws(SystemError) {
        let from = try OwnedDescriptor.open(entry.path, O_RDONLY)
        let file = try OwnedDescriptor.open(target, O_CREAT | O_WRONLY, mode: 0o444)
        while true {
            if try check("sendfile", target, sendfile(file.raw, from.raw, nil, 1 << 30)) == 0 { return }
        }
    }

    private static func parent(of path: String) -> String {
        path.lastIndex(of: "/").map { String(path[..<$0]) } ?? ""
    }
}
