import CAgent
import CLinux
import ContainerPlan
import Glibc
import GuestSystem
import LinuxSystem

/// Makes a container around the calling process, which was started in the namespaces of the plan.
struct ContainerSetup {
    let plan: ContainerPlan

    /// Sets the container up. Afterwards the process is inside the container's root.
    ///
    /// - Returns: the container's terminal, if it has one.
    func apply() throws(AgentFailure) -> Terminal? {
        if plan.owns(NamespaceFlag.cgroup) {
            // Only now: the process was started in its cgroup, which becomes the root of the new namespace.
            try during("new cgroup namespace") { try check("unshare", "", martlet_agent_unshare(NamespaceFlag.cgroup)) }
        }
        if plan.owns(NamespaceFlag.time) { try TimeNamespace.enter(offsets: plan.namespaces.clockOffsets) }
        if plan.owns(NamespaceFlag.network) {
            try during("bring lo up") { try check("SIOCSIFFLAGS", "lo", martlet_agent_interface_up("lo")) }
        }
        try setNames()
        let root = try openRoot()
        let ownUsers = plan.owns(NamespaceFlag.user)
        let steps = MountSteps(root: root, path: plan.root, ownUsers: ownUsers, rootIsReadOnly: plan.rootReadOnly)
        try steps.mount(plan.mounts)
        // The engine brings a whole /dev of its own: it is not ours to fill.
        let bringsDevices = plan.mounts.contains {
            $0.options.isBind && RootDirectory.components($0.destination) == ["dev"]
        }
        if !bringsDevices {
            let guests = plan.hasGuestDevices ? try during("list the guest's devices") { try GuestDevices.list() } : []
            try DeviceSteps(root: root, ownUsers: ownUsers).make(plan.devices, guests: guests)
        }
        let terminal = plan.process.terminal ? try Terminal(root: root, of: plan.process) : nil
        try terminal?.makeConsole(root)
        if plan.mounts.contains(where: \.isReadOnlyDeviceDirectory) {
            try during("make /dev read-only") { try MountSteps(root: root).makeMountReadOnly("/dev") }
        }
        try setKernelParameters()
        for path in plan.readOnlyPaths { try MountSteps(root: root).makeReadOnly(path) }
        try MountSteps(root: root).mask(plan.maskedPaths)
        try makeWorkingDirectory(root)
        try enter(root)
        try HookSteps(plan: plan.hooks).runCreateContainer()
        return terminal
    }

    private func setNames() throws(AgentFailure) {
        if !plan.hostname.isEmpty {
            try during("set hostname \(plan.hostname)") {
                // A namespace that is shared has its name already, and a container with users of its own may not set it.
                if try readText("/proc/sys/kernel/hostname") == "\(plan.hostname)\n" { return }
                try check("sethostname", "", sethostname(plan.hostname, plan.hostname.utf8.count))
            }
        }
        if !plan.domainname.isEmpty {
            try during("set domainname \(plan.domainname)") {
                try check("setdomainname", "", setdomainname(plan.domainname, plan.domainname.utf8.count))
            }
        }
    }

    private func openRoot() throws(AgentFailure) -> RootDirectory {
        try during("root \(plan.root)") {
            // Nothing that is mounted here may show outside; what the agent mounts later in a share that propagates shows here.
            try GuestMounts.mountAt("", "/", nil, MountFlag.slave | MountFlag.recursive)
            // pivot_root(2) wants a mount.
            try GuestMounts.mountAt(plan.root, plan.root, nil, MountFlag.bind | MountFlag.recursive)
            return try RootDirectory(plan.root)
        }
    }

    /// As runc does it: as root, before the root becomes read-only, with mode 0755.
    private func makeWorkingDirectory(_ root: RootDirectory) throws(AgentFailure) {
        let path = plan.process.workingDirectory
        do throws(SystemError) {
            _ = try root.open(path, O_PATH)
        } catch {
            // Other errors are those of entering it, which the container's user may be able to.
            guard error.errno == .noSuchFileOrDirectory else { return }
            do throws(SystemError) {
                _ = try root.makeDirectories(path)
            } catch {
                throw AgentFailure(.invalidArgument, "cwd \(path): \(error)")
            }
        }
    }

    /// Through the guest's own procfs: the container's root is not the root yet.
    private func setKernelParameters() throws(AgentFailure) {
        for parameter in plan.kernelParameters {
            try during("sysctl \(parameter.path)") {
                if RootDirectory.components(parameter.path).contains("..") {
                    throw SystemError("open", parameter.path, errno: .invalidArgument)
                }
                guard let proc = try ProcDirectory(of: try RootDirectory("/")) else {
                    throw SystemError("find the guest's procfs", "/proc", errno: .noSuchAddressOrDevice)
                }
                try proc.write(parameter.value, toParameter: parameter.path)
            }
        }
    }

    private func enter(_ root: RootDirectory) throws(AgentFailure) {
        try during("enter the root") {
            if plan.rootReadOnly {
                try check(
                    "mount_setattr", plan.root,
                    martlet_mount_setattr(
                        root.descriptor.raw, "", UInt32(AT_EMPTY_PATH), UInt64(MOUNT_ATTR_RDONLY), 0, 0))
            }
            try check("fchdir", plan.root, fchdir(root.descriptor.raw))
            // Old and new root on the same place: the old one ends on top of the new and is taken away from there.
            try check("pivot_root", plan.root, martlet_agent_pivot_root(".", "."))
            try check("umount", "the old root", umount2(".", Int32(MNT_DETACH)))
            try check("chdir", "/", chdir("/"))
            if let propagation = plan.rootPropagation { try GuestMounts.mountAt("", "/", nil, propagation) }
        }
    }
}
