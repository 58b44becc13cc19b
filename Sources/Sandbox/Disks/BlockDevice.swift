import Glibc
public import Hypervisor
import LinuxSystem
import OCISpec

extension SandboxPlan {
    /// A block device of the host that a container gets as a disk of its machine.
    public struct BlockDevice: Sendable, Equatable, Codable {
        public var disk: Disk
        /// In the container.
        public var path: String
        /// Permissions and owner of the node.
        public var mode: UInt32
        public var uid: UInt32
        public var gid: UInt32
        /// On the host.
        public var major: Int64
        public var minor: Int64
    }
}

extension SandboxPlan.BlockDevice {
    /// Takes the host's block devices out of a specification: they become disks. A container that may use every device gets those of its
    /// machine, and none of the host's. One that the host does not have either is left.
    static func take(from spec: inout Spec) -> [Self] {
        guard let linux = spec.linux, !linux.allowsAllDevices else { return [] }
        var taken: [Self] = []
        for device in linux.devices where device.type == "b" {
            let (major, minor) = (device.major ?? 0, device.minor ?? 0)
            guard let path = hostPath(major, minor) else { continue }
            let mayWrite = linux.resources?.allowsWriting(major: major, minor: minor) ?? true
            taken.append(
                Self(
                    disk: Disk(path: path, readOnly: !mayWrite), path: device.path, mode: device.fileMode ?? 0o660,
                    uid: device.uid ?? 0, gid: device.gid ?? 0, major: major, minor: minor))
        }
        spec.linux?.devices.removeAll { device in device.type == "b" && taken.contains { $0.path == device.path } }
        return taken
    }

    /// The node of a block device of the host (sysfs, `dev/block`).
    private static func hostPath(_ major: Int64, _ minor: Int64) -> String? {
        let facts = (try? readText("/sys/dev/block/\(major):\(minor)/uevent")) ?? ""
        let name = facts.split(separator: "\n").first { $0.hasPrefix("DEVNAME=") }?.dropFirst("DEVNAME=".count)
        return name.map { "/dev/\($0)" }
    }
}

extension Linux.Resources {
    /// What the last rule says that fits.
    fileprivate func allowsWriting(major: Int64, minor: Int64) -> Bool {
        let rule = devices.last { rule in
            ["", "a", "b"].contains(rule.type) && [-1, major].contains(rule.major ?? -1)
                && [-1, minor].contains(rule.minor ?? -1) && (rule.access.isEmpty || rule.access.contains("w"))
        }
        return rule?.allow ?? false
    }
}
