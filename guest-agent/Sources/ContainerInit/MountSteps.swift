import CLinux
import ContainerPlan
import Glibc
import GuestSystem
import LinuxSystem

/// Makes the mounts of a container below its root, before that becomes the root.
struct MountSteps {
    let root: RootDirectory
    /// Whether the process is in a user namespace of the container's.
    var ownUsers = false

    func mount(_ mounts: [ContainerPlan.MountPlan]) throws(AgentFailure) {
        for plan in mounts {
            let source = plan.options.isBind ? "bind \(plan.source)" : plan.type
            try during("mount \(source) on \(plan.destination)") { try mount(plan) }
        }
    }

    private func mount(_ plan: ContainerPlan.MountPlan) throws(SystemError) {
        let options = plan.options
        if options.isBind, options.isRemount {
            try setAttributes(of: root.open(plan.destination, O_PATH).raw, options)
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
        let target =
            options.isRemount
            ? try root.open(plan.destination, O_PATH)
            : try root.makeMountPoint(plan.destination, isDirectory: true)
        let below = options.copiesUp ? try root.open(plan.destination, O_RDONLY | O_DIRECTORY) : nil
        // Filled before it is read-only.
        let flags = below == nil ? options.mountFlags : options.mountFlags & ~MountFlag.readOnly
        do {
            try GuestMounts.mountAt(plan.source, target.procPath, plan.type, flags, options.data)
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
            try setAttributes(of: root.open(plan.destination, O_PATH).raw, options)
        }
    }

    private func bind(_ plan: ContainerPlan.MountPlan) throws(SystemError) {
        let flags = UInt32(OPEN_TREE_CLONE) | UInt32(O_CLOEXEC) | (plan.options.isRecursive ? UInt32(AT_RECURSIVE) : 0)
        let tree = SharedDescriptor(
            OwnedDescriptor(
                owning: try check("open_tree", plan.source, martlet_open_tree(AT_FDCWD, plan.source, flags))))
        try setAttributes(of: tree.raw, plan.options)
        let isDirectory = try tree.information().st_mode & S_IFMT == S_IFDIR
        try attach(tree, at: plan.destination, isDirectory: isDirectory)
    }

    private func attach(_ tree: SharedDescriptor, at path: String, isDirectory: Bool) throws(SystemError) {
        let target = try root.makeMountPoint(path, isDirectory: isDirectory)
        let flags = UInt32(MOVE_MOUNT_F_EMPTY_PATH) | UInt32(MOVE_MOUNT_T_EMPTY_PATH)
        try check("move_mount", path, martlet_move_mount(tree.raw, "", target.raw, "", flags))
    }

    private func setAttributes(of mount: Int32, _ options: MountOptions) throws(SystemError) {
        for (attributes, flags) in [
            (options.recursiveAttributes, AT_EMPTY_PATH | Int32(AT_RECURSIVE)), (options.attributes, AT_EMPTY_PATH),
        ] where !attributes.isEmpty {
            try check(
                "mount_setattr", "",
                martlet_mount_setattr(mount, "", UInt32(bitPattern: flags), attributes.set, attributes.clear, 0))
        }
    }

    /// Binds one file or directory of the container over another of its files or directories.
    func bind(_ source: SharedDescriptor, over path: String, readOnly: Bool = false) throws(SystemError) {
        let flags = UInt32(OPEN_TREE_CLONE) | UInt32(O_CLOEXEC) | UInt32(AT_EMPTY_PATH)
        let tree = SharedDescriptor(
            OwnedDescriptor(owning: try check("open_tree", path, martlet_open_tree(source.raw, "", flags))))
        if readOnly {
            try check(
                "mount_setattr", path,
                martlet_mount_setattr(tree.raw, "", UInt32(AT_EMPTY_PATH), UInt64(MOUNT_ATTR_RDONLY), 0, 0))
        }
        try attach(tree, at: path, isDirectory: try source.information().st_mode & S_IFMT == S_IFDIR)
    }

    /// Makes a path read-only as it stands; one that is not there needs nothing.
    func makeReadOnly(_ path: String) throws(AgentFailure) {
        try during("make \(path) read-only") {
            guard let target = try existing(path) else { return }
            // Kernel file systems keep their restrictions: the clone has those of the mount it came from.
            let tree = SharedDescriptor(
                OwnedDescriptor(
                    owning: try check(
                        "open_tree", path,
                        martlet_open_tree(
                            target.raw, "",
                            UInt32(OPEN_TREE_CLONE) | UInt32(O_CLOEXEC) | UInt32(AT_EMPTY_PATH) | UInt32(AT_RECURSIVE)))
                ))
            try check(
                "mount_setattr", path,
                martlet_mount_setattr(tree.raw, "", UInt32(AT_EMPTY_PATH), UInt64(MOUNT_ATTR_RDONLY), 0, 0))
            try check(
                "move_mount", path,
                martlet_move_mount(
                    tree.raw, "", target.raw, "", UInt32(MOVE_MOUNT_F_EMPTY_PATH) | UInt32(MOVE_MOUNT_T_EMPTY_PATH)))
        }
    }

    /// Hides a path: a file behind /dev/null, a directory behind an empty one.
    func mask(_ path: String) throws(AgentFailure) {
        try during("mask \(path)") {
            guard let target = try existing(path) else { return }
            if try target.information().st_mode & S_IFMT == S_IFDIR {
                try GuestMounts.mountAt("tmpfs", target.procPath, "tmpfs", MountFlag.readOnly, "size=0k")
            } else {
                try GuestMounts.mountAt("/dev/null", target.procPath, nil, MountFlag.bind)
            }
        }
    }

    private func existing(_ path: String) throws(SystemError) -> SharedDescriptor? {
        do {
            return try root.open(path, O_PATH)
        } catch  where error.errno == .noSuchFileOrDirectory || error.errno == .notDirectory {
            return nil
        }
    }
}
