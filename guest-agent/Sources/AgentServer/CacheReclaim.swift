import AgentAPI
import Glibc
import GuestSystem
import LinuxSystem

/// /proc/meminfo.
enum MemoryFacts {
    /// `MemAvailable:  1234 kB` in each line, in bytes.
    static func read() -> [String: UInt64] {
        var memory: [String: UInt64] = [:]
        for line in ((try? readText("/proc/meminfo")) ?? "").split(separator: "\n") {
            let words = line.split(separator: " ")
            guard words.count == 3, words[2] == "kB", words[0].hasSuffix(":"), let number = UInt64(words[1]) else {
                continue
            }
            memory[String(words[0].dropLast())] = number << 10
        }
        return memory
    }
}

/// Has the kernel drop page cache, and slabs that it can have again, of the whole guest.
///
/// Source: Documentation/admin-guide/cgroup-v2.rst, memory.reclaim; what was used longest ago goes first, and what has not been
/// written back stays.
struct CacheReclaim: Sendable {
    /// So much stays, bytes.
    let floor: UInt64
    /// The root's has all cgroups.
    var file = "/sys/fs/cgroup/memory.reclaim"
    /// What the kernel is asked for at a time, bytes, and how long all of it may take.
    private static let step: UInt64 = 128 << 20
    private static let limit = Duration.seconds(10)

    private static func reclaimable(_ facts: [String: UInt64]) -> UInt64 {
        ["Active(file)", "Inactive(file)", "SReclaimable"].reduce(0) { $0 + (facts[$1] ?? 0) }
    }

    /// - Throws: where the kernel has no such file.
    func run() throws(AgentFailure) -> AgentReclaimMemoryResponse {
        let before = Self.reclaimable(MemoryFacts.read())
        try during("reclaim memory") { try reclaim(before) }
        let facts = MemoryFacts.read()
        let after = Self.reclaimable(facts)
        return .with {
            $0.reclaimedBytes = before > after ? before - after : 0
            $0.freeBytes = facts["MemFree"] ?? 0
        }
    }

    private func reclaim(_ first: UInt64) throws(SystemError) {
        let file = try OwnedDescriptor.open(file, O_WRONLY)
        let begin = ContinuousClock.now
        var left = first
        while left > floor, ContinuousClock.now - begin < Self.limit {
            let amount = Array("\(min(left - floor, Self.step))".utf8)
            let written = write(file.raw, amount, amount.count)
            if written < 0, errno != EAGAIN, errno != EINTR { throw SystemError.last("write", self.file) }
            // It may have been less than asked for, or more.
            let now = Self.reclaimable(MemoryFacts.read())
            if now >= left { return }
            left = now
        }
    }
}
