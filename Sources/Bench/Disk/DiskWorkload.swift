/// The work that the guest of `martlet bench disk` does on each of its disks.
public struct DiskWorkload: Sendable, Equatable {
    /// How long one disk is measured in one round with one pattern, ms.
    public var milliseconds = 500
    /// How many reads or writes are in progress.
    public static let depths = [1, 32]

    public init() {}

    /// Arguments for the kernel's command line. The kernel passes those after `--` to the first process.
    ///
    /// - Parameters:
    ///   - disks: their serial numbers.
    ///   - rounds: how often each disk is measured.
    func kernelArguments(disks: [DiskSide], rounds: Int) -> [String] {
        [
            "--", "disk", "disks=\(disks.map(\.serial).joined(separator: ","))", "rounds=\(rounds)",
            "milliseconds=\(milliseconds)", "depths=\(Self.depths.map(String.init).joined(separator: ","))",
        ]
    }

    /// What is done with a disk: the name of its phase in the guest, and its name and unit in the report. A rate in bytes is
    /// divided by `divisor` to get the unit.
    struct Pattern: Sendable {
        var phase: String
        var name: String
        var unit: String
        var divisor: Double
    }

    static let patterns: [Pattern] = depths.flatMap { depth in
        [
            Pattern(
                phase: "sequential-read-\(depth)", name: "sequential read, depth \(depth)", unit: "MiB/s",
                divisor: 1_048_576),
            Pattern(
                phase: "sequential-write-\(depth)", name: "sequential write, depth \(depth)", unit: "MiB/s",
                divisor: 1_048_576),
            Pattern(
                phase: "random-read-\(depth)", name: "random read, depth \(depth)", unit: "reads/s", divisor: 4096),
            Pattern(
                phase: "random-write-\(depth)", name: "random write, depth \(depth)", unit: "writes/s", divisor: 4096),
        ]
    }
}

/// Who serves the guest's disk: a side of the comparison.
public enum DiskSide: String, CaseIterable, Sendable {
    case builtIn = "built-in VMM"
    case martlet = "Martlet"
    case qemuRing = "QEMU, io_uring"
    case qemuThreads = "QEMU, threads"

    /// The disk's serial number, by which the guest finds it.
    var serial: String {
        switch self {
        case .builtIn, .martlet: "martlet"
        case .qemuRing: "io_uring"
        case .qemuThreads: "threads"
        }
    }

    /// QEMU's arguments for the disk; nil: QEMU does not serve it.
    func arguments(path: String) -> [String]? {
        guard self == .qemuRing || self == .qemuThreads else { return nil }
        // Its commas are doubled, as QEMU wants them. All disks of a machine are the same file, which QEMU would lock.
        let file = path.split(separator: ",", omittingEmptySubsequences: false).joined(separator: ",,")
        return [
            "-drive",
            "file=\(file),if=none,id=\(serial),format=raw,cache=none,aio=\(serial),file.locking=off",
            "-device", "virtio-blk-pci,drive=\(serial),serial=\(serial)",
        ]
    }
}
