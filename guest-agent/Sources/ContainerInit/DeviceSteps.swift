import CAgent
import CLinux
import ContainerPlan
import Glibc
import GuestSystem
import LinuxSystem

/// Fills a container's /dev.
struct DeviceSteps {
    let root: RootDirectory
    /// Whether the process is in a user namespace of the container's, which can't make devices: the guest's are bound.
    let ownUsers: Bool

    static let links = [
        ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ]

    /// - Parameter guests: made unless there is one of the same path in `devices` or among those that each container has.
    func make(
        _ devices: [ContainerPlan.DeviceNode], guests: [ContainerPlan.DeviceNode] = []
    ) throws(AgentFailure) {
        let given = Set(devices.map(\.path))
        let standard = ContainerPlan.DeviceNode.standard.filter { !given.contains($0.path) }
        let made = given.union(standard.map(\.path))
        for device in standard + devices + guests.filter({ !made.contains($0.path) }) {
            try during("create device \(device.path)") { try make(device) }
        }
        try during("create the links in /dev") {
            let directory = try root.makeDirectories("/dev")
            for (name, target) in Self.links { try link(directory, name, target) }
            // The kernel's own node would open a terminal of the guest, not of the container.
            if unlinkat(directory.raw, "ptmx", 0) != 0, Glibc.errno != ENOENT {
                throw SystemError.last("unlink", "/dev/ptmx")
            }
            try link(directory, "ptmx", "pts/ptmx")
        }
    }

    private func make(_ device: ContainerPlan.DeviceNode) throws(SystemError) {
        if ownUsers, mode_t(device.mode) & S_IFMT != S_IFIFO { return try bind(device) }
        let (directory, name) = try root.makeParent(of: device.path)
        if martlet_agent_mknod(directory.raw, name, device.mode, device.major, device.minor) != 0 {
            let error = SystemError.last("mknod", device.path)
            // An image may bring the node along; anything else of that name is in the way.
            guard error.errno == .fileExists, isSame(directory, name, device) else { throw error }
        }
        try check("chmod", device.path, fchmodat(directory.raw, name, device.mode & 0o7777, 0))
        try check(
            "chown", device.path, fchownat(directory.raw, name, device.uid, device.gid, Int32(AT_SYMLINK_NOFOLLOW)))
    }

    private func bind(_ device: ContainerPlan.DeviceNode) throws(SystemError) {
        let name =
            device.path.hasPrefix("/dev/") ? device.path : "/dev/\(RootDirectory.components(device.path).last ?? "")"
        let node = SharedDescriptor(try OwnedDescriptor.open(name, O_PATH | O_NOFOLLOW))
        let found = try node.information()
        guard found.st_mode & S_IFMT == mode_t(device.mode) & S_IFMT,
            found.st_rdev == martlet_agent_device_number(device.major, device.minor)
        else { throw SystemError("find the guest's device", name, errno: .noSuchAddressOrDevice) }
        try MountSteps(root: root).bind(node, over: device.path)
    }

    private func isSame(_ directory: SharedDescriptor, _ name: String, _ device: ContainerPlan.DeviceNode) -> Bool {
        var found = stat()
        guard fstatat(directory.raw, name, &found, AT_SYMLINK_NOFOLLOW) == 0 else { return false }
        let type = mode_t(device.mode) & S_IFMT
        return found.st_mode & S_IFMT == type
            && (type == S_IFIFO || found.st_rdev == martlet_agent_device_number(device.major, device.minor))
    }

    private func link(_ directory: SharedDescriptor, _ name: String, _ target: String) throws(SystemError) {
        if symlinkat(target, directory.raw, name) != 0, Glibc.errno != EEXIST {
            throw SystemError.last("symlink", "/dev/\(name)")
        }
    }
}
