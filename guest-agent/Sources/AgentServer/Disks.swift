import AgentAPI
import CLinux
import ContainerPlan
import Glibc
import GuestSystem
import LinuxSystem

/// The machine's disks, which come and go and are found by their serial numbers.
enum Disks {
    /// How long a disk's driver may take to find it.
    private static let timeout = Duration.seconds(10)
    /// How long the file systems on a disk may take to be unmounted, after the last mount of them is gone.
    private static let releaseTimeout = Duration.seconds(5)
    /// A disk has fewer partitions than this (DISK_MAX_PARTS of the kernel).
    private static let partitions = 1..<256

    /// Mounts the file system on the disk with this serial number, or on a part of it.
    ///
    /// - Parameter parts: the first one has the file system, and the others are its further devices; none: the whole disk.
    static func mount(
        serial: String, parts: [AgentDiskPart], type: String, _ options: MountOptions, at target: String
    ) throws(AgentFailure) {
        let name = try find(serial)
        var device = "/dev/\(name)"
        do throws(SystemError) {
            var devices: [String] = []
            for part in parts { devices.append(try partition(of: name, part)) }
            device = devices.first ?? device
            try makeDirectories(target)
            if devices.count > 1 {
                return try mount(device, devices.dropFirst().map { "device=\($0)" }, type, options, at: target)
            }
            try GuestMounts.mountAt(device, target, type, options.mountFlags, options.data)
        } catch {
            var failure = AgentFailure(error)
            if error.errno == .invalidArgument, type == "erofs", let size = blockSize(of: device), size != 4096 {
                failure.message += ": its blocks have \(size) bytes, and the guest's kernel takes 4096"
            }
            throw failure
        }
    }

    /// Of an EROFS file system, from its superblock (linux/fs/erofs/erofs_fs.h); nil: it is none.
    private static func blockSize(of device: String) -> Int? {
        guard let file = try? SharedDescriptor(OwnedDescriptor.open(device, O_RDONLY)) else { return nil }
        var bytes = [UInt8](repeating: 0, count: 13)
        guard pread(file.raw, &bytes, bytes.count, 1024) == bytes.count, bytes[..<4] == [0xe2, 0xe1, 0xf5, 0xe0],
            bytes[12] < 31
        else { return nil }
        return 1 << Int(bytes[12])
    }

    /// By fsopen(2): the names of a hundred devices are more than mount(2) takes.
    private static func mount(
        _ device: String, _ devices: [String], _ type: String, _ options: MountOptions, at target: String
    ) throws(SystemError) {
        let own = options.data.split(separator: ",").map(String.init) + ["source=\(device)"]
        let flags = options.mountFlags & MountFlag.readOnly != 0 ? ["ro"] : []
        let text = (own + devices + flags).joined(separator: "\n")
        let tree = SharedDescriptor(
            OwnedDescriptor(owning: try check("mount \(type) on", target, martlet_new_mount(type, text))))
        try check(
            "move_mount", target, martlet_move_mount(tree.raw, "", AT_FDCWD, target, UInt32(MOVE_MOUNT_F_EMPTY_PATH)))
    }

    /// The numbers of all disks as devices, `major:minor`.
    static func numbers() -> [String] {
        names().compactMap { (try? readText("/sys/block/\($0)/dev")).map(trimmed) }
    }

    /// The number of a disk as a device.
    static func number(serial: String) throws(AgentFailure) -> (major: Int64, minor: Int64) {
        let name = try find(serial)
        let text = try during("read the number of \(name)") {
            try readText("/sys/block/\(name)/dev")
        }
        let numbers = text.split { $0 == ":" || $0 == "\n" }.compactMap { Int64($0) }
        guard numbers.count == 2 else { throw AgentFailure(.internal, "\(name): \(text)") }
        return (numbers[0], numbers[1])
    }

    /// Lets go of a disk that nothing uses any more. It disappears with its driver where it is in an MMIO slot; a PCI device is
    /// unplugged by the machine.
    static func release(serial: String) throws(AgentFailure) {
        guard let name = named(serial) else { return }
        let clock = ContinuousClock()
        let end = clock.now + releaseTimeout
        // O_EXCL: nothing on it is mounted, nor on a part of it (open(2)).
        while true {
            let device = open("/dev/\(name)", O_RDONLY | O_EXCL | O_CLOEXEC)
            if device >= 0 {
                close(device)
                break
            }
            if errno != EBUSY || clock.now >= end {
                throw AgentFailure(.failedPrecondition, "disk \(serial): \(SystemError.last("open", "/dev/\(name)"))")
            }
            usleep(5_000)
        }
        try during("let go of disk \(serial)") { try HotplugSlots.unbind(device: "/sys/block/\(name)/device") }
    }

    // MARK: Finding

    /// The kernel's name of a disk, `vda`.
    private static func find(_ serial: String) throws(AgentFailure) -> String {
        let clock = ContinuousClock()
        let end = clock.now + timeout
        while true {
            if let name = named(serial), isReady(name) { return name }
            HotplugSlots.probe()
            if let name = named(serial), isReady(name) { return name }
            if clock.now >= end { throw AgentFailure(.notFound, "the machine has no disk \(serial)") }
            usleep(5_000)
        }
    }

    private static func named(_ serial: String) -> String? {
        names().first { name in
            guard let found = try? readText("/sys/block/\(name)/serial") else { return false }
            return trimmed(found) == serial
        }
    }

    /// Whether a disk can be opened: the kernel shows it in sysfs a moment before that (device_add_disk: `device_add`, later
    /// `bdev_add`), and open(2) fails with ENXIO meanwhile.
    private static func isReady(_ name: String) -> Bool {
        let device = open("/dev/\(name)", O_RDONLY | O_CLOEXEC)
        guard device >= 0 else { return errno != ENXIO && errno != ENOENT }
        close(device)
        return true
    }

    private static func trimmed(_ text: String) -> String { String(text.prefix { $0 != "\n" && $0 != " " }) }

    private static func names() -> [String] {
        ((try? directoryNames("/sys/block")) ?? []).filter { $0.hasPrefix("vd") }
    }

    // MARK: Parts

    /// The node of a part of a disk, which becomes a partition where it is none yet.
    private static func partition(of name: String, _ part: AgentDiskPart) throws(SystemError) -> String {
        let sector: UInt64 = 512
        let known = try directoryNames("/sys/block/\(name)").filter { $0.hasPrefix(name) }
        for partition in known {
            func number(_ file: String) -> UInt64? {
                (try? readText("/sys/block/\(name)/\(partition)/\(file)")).flatMap { UInt64(trimmed($0)) }
            }
            if number("start") == part.offset / sector, number("size") == part.length / sector {
                return "/dev/\(partition)"
            }
        }
        let disk = SharedDescriptor(try OwnedDescriptor.open("/dev/\(name)", O_RDONLY))
        guard let free = partitions.first(where: { !known.contains("\(name)\($0)") }) else {
            throw SystemError("add a partition to", name, errno: .noSpace)
        }
        try check(
            "add a partition to", name,
            martlet_add_partition(disk.raw, Int32(free), Int64(clamping: part.offset), Int64(clamping: part.length)))
        return "/dev/\(name)\(free)"
    }
}
