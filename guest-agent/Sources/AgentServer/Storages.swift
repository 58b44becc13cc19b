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
        let driver = try during(what) { [storage] in try Self.checked(storage) }
        for directory in storage.directories { try during(what) { try Layers.make(directory) } }
        switch driver {
        case .block:
            let options = try MountOptions(storage.options)
            try during(what) { [storage] in
                try Disks.mount(
                    serial: storage.source, parts: storage.parts, type: storage.fstype, options,
                    at: storage.mountPoint)
            }
            return mountPoints.append(storage.mountPoint)
        case .overlay:
            try during(what) { [storage] in try Layers.mountOverlay(storage) }
            return mountPoints.append(storage.mountPoint)
        case .memory:
            try during(what) { [storage] in try Layers.mountMemory(storage) }
            return mountPoints.append(storage.mountPoint)
        case .bind:
            try during(what) { [storage] in try Layers.mountBind(storage) }
            return mountPoints.append(storage.mountPoint)
        case .device: return
        case .share, .volume: break
        }
        try during(what) {
            if driver == .volume {
                let tree = try volumes.find(storage.source).tree(storage.path)
                return try attach(tree, storage.source, at: storage.mountPoint, readOnly: storage.readonly)
            }
            let tree = try Self.share(shares + "/" + storage.source)
            if storage.path.isEmpty {
                try attach(tree, storage.source, at: storage.mountPoint, readOnly: storage.readonly)
            } else {
                try attach(tree, storage.source, at: storage.path, in: storage.mountPoint, readOnly: storage.readonly)
            }
            for path in storage.options { Self.lookUp(path) }
        }
    }

    private static func checked(_ storage: AgentStorage) throws(AgentFailure) -> StorageDriver {
        guard let driver = StorageDriver(rawValue: storage.driver) else {
            throw AgentFailure(.unimplemented, "no storage driver of that name")
        }
        let isNamed = [.share, .block, .volume, .device].contains(driver)
        guard !isNamed || isRelativePath(storage.source, components: driver == .share ? 2 : 1) else {
            throw AgentFailure(.invalidArgument, "not the name of a share, disk or volume")
        }
        if driver == .device { return driver }
        let parts = storage.mountPoint.split(separator: "/", omittingEmptySubsequences: false)
        guard storage.mountPoint.hasPrefix("\(GuestPath.base)/"), !parts.contains(".."), parts.last != "" else {
            throw AgentFailure(.invalidArgument, "the mount point is not below \(GuestPath.base)")
        }
        return driver
    }

    /// Whether a path has at most so many components, none of them special. By bytes: a string's `contains("/")` is
    /// Foundation's here, and 44 MB come along with it.
    private static func isRelativePath(_ path: String, components: Int) -> Bool {
        let parts = path.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
        return parts.count <= components
            && parts.allSatisfy { part in !["", ".", ".."].contains { part.elementsEqual($0.utf8) } }
    }

    /// A clone of a share's mount: of this one alone, those below it are shares of their own.
    private static func share(_ path: String) throws(SystemError) -> SharedDescriptor {
        let flags = UInt32(OPEN_TREE_CLONE) | UInt32(O_CLOEXEC)
        var tree = martlet_open_tree(AT_FDCWD, path, flags)
        // A directory that is known by another path too moves to this one, which a change in its directory may prevent
        // just now.
        for _ in 0..<50 where tree < 0 && errno == ESTALE {
            usleep(10_000)
            tree = martlet_open_tree(AT_FDCWD, path, flags)
        }
        return SharedDescriptor(OwnedDescriptor(owning: try check("open_tree", path, tree)))
    }

    /// Looks a directory up by the path by which other containers know it. The kernel knows a directory by one path at a
    /// time: to mount it as a share has taken it from that one, where `..` and getcwd(2) would fail until the next lookup.
    private static func lookUp(_ path: String) {
        let flags = UInt64(UInt32(bitPattern: O_PATH | O_CLOEXEC | O_DIRECTORY))
        let file = martlet_openat2(AT_FDCWD, path, flags, 0, UInt64(RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS))
        if file >= 0 { close(file) }
    }

    private static func restrict(_ tree: SharedDescriptor, _ name: String, _ readOnly: Bool) throws(SystemError) {
        guard readOnly else { return }
        try check(
            "mount_setattr", name,
            martlet_mount_setattr(tree.raw, "", UInt32(AT_EMPTY_PATH), UInt64(MOUNT_ATTR_RDONLY), 0, 0))
    }

    private mutating func attach(
        _ tree: SharedDescriptor, _ name: String, at target: String, readOnly: Bool
    ) throws(SystemError) {
        try Self.restrict(tree, name, readOnly)
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

    /// Mounts a share below another one. Containers may change the other one meanwhile, so nothing that leads out of it is
    /// followed (openat2(2)). Goes with the mount that it is in.
    private func attach(
        _ tree: SharedDescriptor, _ name: String, at path: String, in base: String, readOnly: Bool
    ) throws(SystemError) {
        try Self.restrict(tree, name, readOnly)
        let directory = try OwnedDescriptor.open(base, O_PATH | O_DIRECTORY)
        let target = OwnedDescriptor(
            owning: try check(
                "openat2", "\(base)/\(path)",
                martlet_openat2(
                    directory.raw, path, UInt64(UInt32(bitPattern: O_PATH | O_CLOEXEC)), 0,
                    UInt64(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS))))
        let flags = UInt32(MOVE_MOUNT_F_EMPTY_PATH) | UInt32(MOVE_MOUNT_T_EMPTY_PATH)
        try check("move_mount", "\(base)/\(path)", martlet_move_mount(tree.raw, "", target.raw, "", flags))
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
}

/// Removes the directories that were made for one container alone, up to those that all containers share.
func removeEmptyDirectories(above path: String) {
    var path = path[...]
    while let slash = path.lastIndex(of: "/") {
        path = path[..<slash]
        if path == GuestPath.base || path == GuestPath.containers || rmdir(String(path)) != 0 { return }
    }
}
