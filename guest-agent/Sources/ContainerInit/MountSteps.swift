import CAgent
import CLinux
import ContainerPlan
import Glibc
import GuestSystem
import LinuxSystem

/// Makes the mounts of a container below its root, before that becomes the root.
struct MountSteps {
    let root: RootDirectory
    /// Where the root is outside of the container; empty: nothing there is the source of a mount.
    var path = ""
    /// Whether the process is in a user namespace of the container's.
    var ownUsers = false
    var rootIsReadOnly = false

    func mount(_ mounts: [ContainerPlan.MountPlan]) throws(AgentFailure) {
        for plan in mounts {
            let source = plan.options.isBind ? "bind \(plan.source)" : plan.type
            try during("mount \(source) on \(plan.destination)") { try mount(plan) }
        }
    }

    private func mount(_ plan: ContainerPlan.MountPlan) throws(SystemError) {
        let options = plan.options
        if options.isBind, options.isRemount {
            try setAttributes(of: root.open(plan.destination, O_PATH), options)
        } else if options.isBind {
            try bind(plan)
        } else {
            try mountNew(plan)
        }
        for flag in options.propagation {
            // Opened anew: a descriptor from before the mount leads below it.
            let target = try root.open(plan.destination, O_PATH)
            try GuestMounts.mountAt("", target.procPath, nil, flag)
        }
    }

    private func mountNew(_ plan: ContainerPlan.MountPlan) throws(SystemError) {
        let options = plan.options
        let data = try fileSystemOptions(plan)
        let target =
            options.isRemount
            ? try root.open(plan.destination, O_PATH)
            : try mountPoint(plan)
        let below = options.copiesUp ? try root.open(plan.destination, O_RDONLY | O_DIRECTORY) : nil
        // Filled before it is read-only.
        let isFilled = below != nil || plan.isReadOnlyDeviceDirectory
        let flags = isFilled ? options.mountFlags & ~MountFlag.readOnly : options.mountFlags
        do {
            try GuestMounts.mountAt(plan.source, target.procPath, plan.type, flags, data)
        } catch  where ownUsers && plan.type == "sysfs" && error.errno == .notPermitted {
            // The network that it shows is the sandbox's, and so only the sandbox's root may mount it anew.
            var bound = plan
            bound.source = GuestMounts.bareSysfs
            return try bind(bound)
        }
        if let below {
            let made = try root.open(plan.destination, O_RDONLY | O_DIRECTORY)
            try TreeCopy.copy(below.raw, made.raw, plan.destination)
            if flags != options.mountFlags {
                try check(
                    "mount_setattr", plan.destination,
                    martlet_mount_setattr(made.raw, "", UInt32(AT_EMPTY_PATH), UInt64(MOUNT_ATTR_RDONLY), 0, 0))
            }
        }
        if !options.recursiveAttributes.isEmpty {
            try setAttributes(of: root.open(plan.destination, O_PATH), options)
        }
    }

    /// What the file system itself reads. A tmpfs without a mode has that of the directory that it hides, as with runc. Below a read-only
    /// root the host may have made that just now, with mode 0755: that says nothing.
    private func fileSystemOptions(_ plan: ContainerPlan.MountPlan) throws(SystemError) -> String {
        let data = plan.options.data
        guard plan.type == "tmpfs", !plan.options.isRemount,
            !data.split(separator: ",").contains(where: { $0.hasPrefix("mode=") }),
            let hidden = try existing(plan.destination)
        else { return data }
        let bits = try hidden.information().st_mode & 0o7777
        if rootIsReadOnly, bits == 0o755 { return data }
        let mode = String(bits, radix: 8)
        return data.isEmpty ? "mode=\(mode)" : "\(data),mode=\(mode)"
    }

    /// A directory of the kernel's own file systems may not lie behind a link: another container that shares the place could
    /// move it while paths below are masked (runc does the same).
    private func mountPoint(_ plan: ContainerPlan.MountPlan) throws(SystemError) -> SharedDescriptor {
        if ["proc", "sysfs"].contains(plan.type) {
            return try mountPointWithoutLinks(plan.destination, isDirectory: true)
        }
        return try root.makeMountPoint(plan.destination, isDirectory: true)
    }

    private func mountPointWithoutLinks(_ path: String, isDirectory: Bool) throws(SystemError) -> SharedDescriptor {
        _ = try root.makeMountPoint(path, isDirectory: isDirectory)
        do throws(SystemError) {
            return try root.openWithoutLinks(path, O_PATH)
        } catch {
            guard error.errno == .tooManySymbolicLinkLevels else { throw error }
            let kind = isDirectory ? "directory" : "file"
            throw SystemError("must be mounted on ordinary \(kind), not on a symbolic link:", path, errno: error.errno)
        }
    }

    private func bind(_ plan: ContainerPlan.MountPlan) throws(SystemError) {
        let source: SharedDescriptor
        if !path.isEmpty, plan.source.utf8.starts(with: (path + "/").utf8) {
            // Something in the container, with what is mounted there by now: no link may lead out.
            source = try root.open(String(decoding: plan.source.utf8.dropFirst(path.utf8.count), as: UTF8.self), O_PATH)
        } else {
            source = SharedDescriptor(try OwnedDescriptor.open(plan.source, O_PATH))
        }
        let tree = try clone(source, plan.source, isRecursive: plan.options.isRecursive)
        try setAttributes(of: tree, plan.options)
        let isDirectory = try tree.information().st_mode & S_IFMT == S_IFDIR
        try attach(tree, at: plan.destination, isDirectory: isDirectory)
    }

    private func attach(_ tree: SharedDescriptor, at path: String, isDirectory: Bool) throws(SystemError) {
        try attach(tree, to: try root.makeMountPoint(path, isDirectory: isDirectory), path)
    }

    private func attach(
        _ tree: SharedDescriptor, to target: SharedDescriptor, _ path: String
    ) throws(SystemError) {
        let flags = UInt32(MOVE_MOUNT_F_EMPTY_PATH) | UInt32(MOVE_MOUNT_T_EMPTY_PATH)
        try check("move_mount", path, martlet_move_mount(tree.raw, "", target.raw, "", flags))
    }

    private func setAttributes(of mount: SharedDescriptor, _ options: MountOptions) throws(SystemError) {
        defer { withExtendedLifetime(mount) {} }
        for (attributes, flags) in [
            (options.recursiveAttributes, AT_EMPTY_PATH | Int32(AT_RECURSIVE)), (options.attributes, AT_EMPTY_PATH),
        ] where !attributes.isEmpty {
            try check(
                "mount_setattr", "",
                martlet_mount_setattr(mount.raw, "", UInt32(bitPattern: flags), attributes.set, attributes.clear, 0))
        }
    }

    /// Binds one file or directory of the container over another of its files or directories.
    func bind(_ source: SharedDescriptor, over path: String) throws(SystemError) {
        let tree = try clone(source, path)
        try attach(tree, at: path, isDirectory: try source.information().st_mode & S_IFMT == S_IFDIR)
    }

    /// As `bind`, of a file over one that does not lie behind a link.
    func bindFile(_ source: SharedDescriptor, over path: String) throws(SystemError) {
        try attach(clone(source, path), to: mountPointWithoutLinks(path, isDirectory: false), path)
    }

    private func clone(
        _ source: SharedDescriptor, _ path: String, isRecursive: Bool = false
    ) throws(SystemError) -> SharedDescriptor {
        let flags =
            UInt32(OPEN_TREE_CLONE) | UInt32(O_CLOEXEC) | UInt32(AT_EMPTY_PATH)
            | (isRecursive ? UInt32(AT_RECURSIVE) : 0)
        let tree = try check("open_tree", path, martlet_open_tree(source.raw, "", flags))
        return SharedDescriptor(OwnedDescriptor(owning: tree))
    }

    /// Makes the mount at a path read-only.
    func makeMountReadOnly(_ path: String) throws(SystemError) {
        let mount = try root.open(path, O_PATH)
        try check(
            "mount_setattr", path,
            martlet_mount_setattr(mount.raw, "", UInt32(AT_EMPTY_PATH), UInt64(MOUNT_ATTR_RDONLY), 0, 0))
        withExtendedLifetime(mount) {}
    }

    /// Makes a path read-only as it stands; one that is not there needs nothing.
    func makeReadOnly(_ path: String) throws(AgentFailure) {
        try during("make \(path) read-only") {
            guard let target = try existing(path) else { return }
            // Kernel file systems keep their restrictions: the clone has those of the mount it came from.
            let tree = try clone(target, path, isRecursive: true)
            try check(
                "mount_setattr", path,
                martlet_mount_setattr(tree.raw, "", UInt32(AT_EMPTY_PATH), UInt64(MOUNT_ATTR_RDONLY), 0, 0))
            try attach(tree, to: target, path)
        }
    }

    /// Hides paths: files behind /dev/null, directories behind one that is empty, the same for all.
    func mask(_ paths: [String]) throws(AgentFailure) {
        var empty: SharedDescriptor?
        for path in paths {
            try during("mask \(path)") {
                guard let target = try existing(path) else { return }
                guard try target.information().st_mode & S_IFMT == S_IFDIR else {
                    return try attach(clone(nullDevice(), path), to: target, path)
                }
                // What is attached can be cloned.
                let tree = try empty.map { shared throws(SystemError) in try clone(shared, path) } ?? emptyDirectory()
                try attach(tree, to: target, path)
                if empty == nil { empty = tree }
            }
        }
    }

    private func emptyDirectory() throws(SystemError) -> SharedDescriptor {
        SharedDescriptor(OwnedDescriptor(owning: try check("mount", "an empty directory", martlet_empty_directory())))
    }

    /// The guest's own: a container's may be anything.
    private func nullDevice() throws(SystemError) -> SharedDescriptor {
        let node = SharedDescriptor(try OwnedDescriptor.open("/dev/null", O_PATH | O_NOFOLLOW))
        let found = try node.information()
        guard found.st_mode & S_IFMT == S_IFCHR, found.st_rdev == martlet_agent_device_number(1, 3) else {
            throw SystemError("find the guest's device", "/dev/null", errno: .noSuchAddressOrDevice)
        }
        return node
    }

    private func existing(_ path: String) throws(SystemError) -> SharedDescriptor? {
        do throws(SystemError) {
            if let below = try ProcDirectory.open(path, of: root) { return below }
            return try root.open(path, O_PATH)
        } catch {
            if error.errno == .noSuchFileOrDirectory || error.errno == .notDirectory { return nil }
            throw error
        }
    }
}
