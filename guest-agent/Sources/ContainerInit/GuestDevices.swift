import CAgent
import ContainerPlan
import Glibc
import LinuxSystem

/// The devices of the guest, as the kernel lists them in /dev (devtmpfs).
enum GuestDevices {
    /// File systems and links of the guest's own /dev, which a container has itself.
    private static let skipped: Set<String> = ["pts", "shm", "mqueue", "fd", "console", "ptmx"]

    /// All below the directory `name` of the directory `parent`, whose path is `path`.
    static func list(
        _ name: String = "/dev", in parent: Int32 = AT_FDCWD, path: String = "/dev"
    ) throws(SystemError) -> [ContainerPlan.DeviceNode] {
        let directory = try OwnedDescriptor.open(name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, at: parent)
        var devices: [ContainerPlan.DeviceNode] = []
        for name in try directoryNames(directory.raw, path).sorted() {
            if path == "/dev", skipped.contains(name) { continue }
            var found = stat()
            // One that was unplugged just now.
            guard fstatat(directory.raw, name, &found, AT_SYMLINK_NOFOLLOW) == 0 else { continue }
            switch found.st_mode & S_IFMT {
            case S_IFDIR:
                devices += try list(name, in: directory.raw, path: "\(path)/\(name)")
            case S_IFCHR, S_IFBLK:
                let number = UInt64(found.st_rdev)
                devices.append(
                    .init(
                        path: "\(path)/\(name)", mode: found.st_mode, major: martlet_agent_device_major(number),
                        minor: martlet_agent_device_minor(number), uid: found.st_uid, gid: found.st_gid))
            default: continue
            }
        }
        return devices
    }
}
