import AgentAPI
import Glibc
import LinuxSystem

extension Cgroup {
    /// What it has counted. What the kernel has no file for stays zero or empty.
    func statistics() -> AgentContainerStatsResponse {
        .with {
            $0.pidsCurrent = number("pids.current") ?? 0
            $0.pidsLimit = number("pids.max") ?? 0
            $0.cpu = numbers("cpu.stat")
            $0.memory = numbers("memory.stat")
            $0.memoryEvents = numbers("memory.events")
            $0.memoryUsage = number("memory.current") ?? 0
            $0.memoryLimit = number("memory.max") ?? 0
            $0.memoryPeak = number("memory.peak") ?? 0
            $0.swapUsage = number("memory.swap.current") ?? 0
            $0.swapLimit = number("memory.swap.max") ?? 0
            $0.disks = disks()
            $0.hugePages = hugePageSizes().map { size in
                .with {
                    $0.pageSize = size
                    $0.current = number("hugetlb.\(size).current") ?? 0
                    $0.limit = number("hugetlb.\(size).max") ?? 0
                    $0.failures = numbers("hugetlb.\(size).events")["max"] ?? 0
                }
            }
        }
    }

    /// `254:0 rbytes=1 wbytes=2 …` in each line.
    private func disks() -> [AgentDiskStats] {
        guard let text = try? readText(path + "/io.stat") else { return [] }
        return text.split(separator: "\n").compactMap { line in
            let fields = line.split(separator: " ")
            guard let device = fields.first?.split(separator: ":"), device.count == 2, let major = UInt64(device[0]),
                let minor = UInt64(device[1])
            else { return nil }
            return .with {
                $0.major = major
                $0.minor = minor
                for field in fields.dropFirst() {
                    let parts = field.split(separator: "=")
                    if parts.count == 2, let value = UInt64(parts[1]) { $0.counters[String(parts[0])] = value }
                }
            }
        }
    }

    /// Of which it has files: `2MB`.
    private func hugePageSizes() -> [String] {
        let (prefix, suffix) = ("hugetlb.", ".current")
        return names().filter { $0.hasPrefix(prefix) && $0.hasSuffix(suffix) && !$0.contains(".rsvd.") }
            .map { String($0.dropFirst(prefix.count).dropLast(suffix.count)) }.sorted()
    }
}
