import Glibc
public import LinuxSystem

/// The file systems of the guest itself.
public enum GuestMounts {
    public static let cgroups = "/sys/fs/cgroup"
    /// A sysfs with nothing mounted below, for containers that may not mount one: what is mounted below /sys would stick to it.
    public static let bareSysfs = "/run/sysfs"

    struct FileSystem {
        var type: String
        var path: String
        var flags: UInt
        var data: String = ""
        /// A kernel without it still runs containers.
        var optional = false
    }

    private static let plain = MountFlag.noSetID | MountFlag.noDevices
    private static let data = plain | MountFlag.noExecution

    /// /proc and /dev were mounted before Swift started.
    static let fileSystems = [
        FileSystem(type: "sysfs", path: "/sys", flags: data),
        FileSystem(type: "tmpfs", path: "/run", flags: plain, data: "mode=0755"),
        FileSystem(type: "sysfs", path: bareSysfs, flags: data),
        FileSystem(type: "tmpfs", path: "/tmp", flags: plain, data: "mode=1777"),
        FileSystem(
            type: "devpts", path: "/dev/pts", flags: MountFlag.noSetID | MountFlag.noExecution,
            data: "mode=0620,gid=5,ptmxmode=0666"),
        FileSystem(type: "tmpfs", path: "/dev/shm", flags: plain, data: "mode=1777"),
        FileSystem(type: "mqueue", path: "/dev/mqueue", flags: data, optional: true),
        FileSystem(type: "cgroup2", path: cgroups, flags: data),
    ]

    /// Makes the root a mount that pivot_root(2) can leave: the first root of a kernel can't be left, so it is bound
    /// to a directory, moved over itself and entered.
    public static func makeRootMovable() throws(SystemError) {
        mkdir("/mnt", 0o755)
        try mountAt("/", "/mnt", nil, MountFlag.bind)
        for path in ["/proc", "/dev"] { try mountAt(path, "/mnt" + path, nil, MountFlag.move) }
        try check("chdir", "/mnt", chdir("/mnt"))
        try mountAt(".", "/", nil, MountFlag.move)
        try check("chroot", "/mnt", chroot("."))
        try check("chdir", "/", chdir("/"))
    }

    public static func mountAll() throws(SystemError) {
        for system in fileSystems {
            mkdir(system.path, 0o755)
            do {
                try mountAt(system.type, system.path, system.type, system.flags, system.data)
            } catch {
                if !system.optional { throw error }
            }
        }
    }

    /// mount(2).
    public static func mountAt(
        _ source: String, _ target: String, _ type: String?, _ flags: UInt, _ data: String = ""
    ) throws(SystemError) {
        let what = type.map { "mount \($0) on" } ?? "mount \(source) on"
        try check(what, target, mount(source, target, type, flags, data.isEmpty ? nil : data))
    }
}
