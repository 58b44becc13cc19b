import ContainerPlan
import Glibc
import GuestSystem
import LinuxSystem

/// The machine's disks, which are found by their serial numbers.
enum Disks {
    /// How long a disk's driver may take to find it after the guest's start.
    private static let timeout = Duration.seconds(10)

    /// Mounts the file system on the disk with this serial number.
    static func mount(
        serial: String, type: String, _ options: MountOptions, at target: String
    ) throws(AgentFailure) {
        let device = try find(serial)
        do throws(SystemError) {
            try makeDirectories(target)
            try GuestMounts.mountAt(device, target, type, options.mountFlags, options.data)
        } catch {
            throw AgentFailure(error)
        }
    }

    /// The device node of a disk.
    private static func find(_ serial: String) throws(AgentFailure) -> String {
        let clock = ContinuousClock()
        let end = clock.now + timeout
        while true {
            for name in names() {
                guard let found = try? readText("/sys/block/\(name)/serial") else { continue }
                if trimmed(found) == serial { return "/dev/\(name)" }
            }
            if clock.now >= end { throw AgentFailure(.notFound, "the machine has no disk \(serial)") }
            usleep(10_000)
        }
    }

    private static func trimmed(_ text: String) -> String { String(text.prefix { $0 != "\n" && $0 != " " }) }

    private static func names() -> [String] {
        ((try? directoryNames("/sys/block")) ?? []).filter { $0.hasPrefix("vd") }
    }
}
