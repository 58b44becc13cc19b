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
                return try attach(tree, storage)
            }
            let tree = try Self.share(shares + "/" + storage.source)
            if storage.path.isEmpty { try attach(tree, storage) } else { try Self.attach(tree, below: storage) }
            for path in storage.options { Self.lookUp(path) }
        }
    }

    // MARK: Shares that come and go

    /// Mounts a share on one of these, or below it.
    ///
    /// - Parameter shares: the directory of the file device's shares.
    func mountShare(_ storage: AgentStorage, shares: String) throws(AgentFailure) {
        let what = "mount share \(storage.source) on \(storage.mountPoint)/\(storage.path)"
        try during(what) {
            guard try Self.checked(storage) == .share else { throw AgentFailure(.invalidArgument, "not a share") }
            try requireMounted(storage.mountPoint)
            try Self.attach(try Self.share(shares + "/" + storage.source), below: storage)
            for path in storage.options { Self.lookUp(path) }
        }
    }

    /// Takes away what `mountShare` has mounted there last. Who has a file of it open keeps that.
    func unmountShare(_ path: String, at mountPoint: String) throws(AgentFailure) {
        try during("unmount \(mountPoint)/\(path)") {
            try requireMounted(mountPoint)
            let target = try Self.target(path, in: mountPoint)
            try check("umount", "", umount2(target.procPath, Int32(MNT_DETACH)))
        }
    }

    private func requireMounted(_ mountPoint: String) throws(AgentFailure) {
        guard mountPoints.contains(mountPoint) else {
            throw AgentFailure(.notFound, "the container has no mount at \(mountPoint)")
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

    /// Gives a tree that is attached nowhere the properties that a storage has.
    private static func prepare(_ tree: SharedDescriptor, _ storage: AgentStorage) throws(SystemError) {
        guard storage.readonly || storage.propagates else { return }
        try check(
            "mount_setattr", storage.source,
            martlet_mount_setattr(
                tree.raw, "", UInt32(AT_EMPTY_PATH), storage.readonly ? UInt64(MOUNT_ATTR_RDONLY) : 0, 0,
                storage.propagates ? UInt64(MountFlag.shared) : 0))
    }

    private mutating func attach(_ tree: SharedDescriptor, _ storage: AgentStorage) throws(SystemError) {
        let target = storage.mountPoint
        try Self.prepare(tree, storage)
        var information = stat()
        try check("fstat", storage.source, fstat(tree.raw, &information))
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

    /// Mounts a share below another one, or over it. Goes with the mount that it is in.
    private static func attach(_ tree: SharedDescriptor, below storage: AgentStorage) throws(SystemError) {
        try prepare(tree, storage)
        let target = try target(storage.path, in: storage.mountPoint)
        let flags = UInt32(MOVE_MOUNT_F_EMPTY_PATH) | UInt32(MOVE_MOUNT_T_EMPTY_PATH)
        try check(
            "move_mount", "\(storage.mountPoint)/\(storage.path)",
            martlet_move_mount(tree.raw, "", target.raw, "", flags))
    }

    /// What is at a path in a mount, with what is mounted there. Containers may change the mount meanwhile, so nothing that leads out of it is
    /// followed (openat2(2)).
    ///
    /// - Parameter path: relative; empty: the mount itself.
    private static func target(_ path: String, in base: String) throws(SystemError) -> SharedDescriptor {
        let top = SharedDescriptor(try OwnedDescriptor.open(base, O_PATH))
        if path.isEmpty { return top }
        return SharedDescriptor(
            OwnedDescriptor(
                owning: try check(
                    "openat2", "\(base)/\(path)",
                    martlet_openat2(
                        top.raw, path, UInt64(UInt32(bitPattern: O_PATH | O_CLOEXEC)), 0,
                        UInt64(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)))))
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
