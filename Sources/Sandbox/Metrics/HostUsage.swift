import Glibc
import LinuxSystem
import Telemetry

/// What a pod's processes on the host use, by their kinds. What processes have used that have ended is not in it.
///
/// Source: proc(5); Documentation/filesystems/proc.rst.
package struct HostUsage: Sendable {
    /// Of all processes of one kind.
    package struct Counters: Sendable {
        package var processes: UInt64 = 0
        package var threads: UInt64 = 0
        /// Microseconds.
        package var user: UInt64 = 0
        package var system: UInt64 = 0
        package var majorFaults: UInt64 = 0
        /// Bytes.
        package var resident: UInt64 = 0
        /// What processes share is divided among them. nil: this kernel does not tell.
        package var proportional: UInt64?
        package var anonymous: UInt64 = 0
        package var swap: UInt64 = 0
        package var storageRead: UInt64 = 0
        package var storageWritten: UInt64 = 0
    }

    /// By kind: `server`, `vmm`, `qemu`, `files`, `vsock`, `blk`, `container`.
    package private(set) var kinds: [String: Counters] = [:]

    /// Reads the counters now; blocks.
    ///
    /// - Parameter processes: kinds and process ids. Processes that are gone give nothing.
    package init(of processes: [(kind: String, pid: Int32)]) {
        for (kind, pid) in processes { kinds[kind, default: Counters()].add(pid) }
        kinds = kinds.filter { $0.value.processes > 0 }
    }

    func readings() -> MetricReadings {
        var readings = MetricReadings()
        for (kind, use) in kinds.sorted(by: { $0.key < $1.key }) {
            readings.add(.processCount, [kind], use.processes)
            readings.add(.processThreads, [kind], use.threads)
            readings.add(.processCPU, [kind, "user"], Double(use.user) / 1e6)
            readings.add(.processCPU, [kind, "system"], Double(use.system) / 1e6)
            readings.add(.processResident, [kind], use.resident)
            if let proportional = use.proportional { readings.add(.processProportional, [kind], proportional) }
            readings.add(.processMajorFaults, [kind], use.majorFaults)
            readings.add(.processStorage, [kind, "read"], use.storageRead)
            readings.add(.processStorage, [kind, "write"], use.storageWritten)
        }
        return readings
    }
}

extension HostUsage.Counters {
    private static let ticks = UInt64(max(1, sysconf(Int32(_SC_CLK_TCK))))
    private static let pageSize = UInt64(sysconf(Int32(_SC_PAGESIZE)))

    /// Adds what a process has used.
    fileprivate mutating func add(_ pid: Int32) {
        guard let fields = ProcessStatus.fields(of: pid), fields.count > 21, !["Z", "X"].contains(fields[0]) else {
            return
        }
        func field(_ index: Int) -> UInt64 { UInt64(fields[index]) ?? 0 }
        processes += 1
        majorFaults += field(9)
        user += field(11) * 1_000_000 / Self.ticks
        system += field(12) * 1_000_000 / Self.ticks
        threads += field(17)
        resident += field(21) * Self.pageSize
        let memory = Self.numbers("/proc/\(pid)/smaps_rollup")
        if let part = memory["Pss"] { proportional = (proportional ?? 0) + part << 10 }
        // Of huge pages it has its share too.
        anonymous += (memory["Pss_Anon"] ?? 0) << 10
        swap += (memory["SwapPss"] ?? 0) << 10
        let storage = Self.numbers("/proc/\(pid)/io")
        storageRead += storage["read_bytes"] ?? 0
        storageWritten += storage["write_bytes"] ?? 0
    }

    /// The numbers of a file with a name, a colon and a number in each line.
    private static func numbers(_ path: String) -> [String: UInt64] {
        var numbers: [String: UInt64] = [:]
        for line in ((try? readText(path)) ?? "").split(separator: "\n") {
            guard let colon = line.firstIndex(of: ":"),
                let number = line[line.index(after: colon)...].split(separator: " ").first.flatMap({ UInt64($0) })
            else { continue }
            numbers[String(line[..<colon])] = number
        }
        return numbers
    }
}
