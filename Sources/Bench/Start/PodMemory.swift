import Glibc
import LinuxSystem

/// Memory of one process on the host, in KiB, the guest's memory apart.
public struct ProcessMemory: Sendable, Equatable, Codable {
    public var process: String
    /// Private_Clean and Private_Dirty: what the end of this process would give back.
    public var privateKiB: Int
    /// Pss: shared pages in proportion.
    public var proportionalKiB: Int
    /// Rss of the mappings of the guest's memory.
    public var guestKiB: Int

    private enum CodingKeys: String, CodingKey {
        case process
        case privateKiB = "private_kib"
        case proportionalKiB = "proportional_kib"
        case guestKiB = "guest_kib"
    }

    init(process: String, privateKiB: Int = 0, proportionalKiB: Int = 0, guestKiB: Int = 0) {
        self.process = process
        self.privateKiB = privateKiB
        self.proportionalKiB = proportionalKiB
        self.guestKiB = guestKiB
    }

    /// Reads /proc/PID/smaps. Files without a name are the guest's memory: nothing else here maps one.
    init(process: String, pid: Int32) throws {
        self.init(process: process, smaps: try readText("/proc/\(pid)/smaps", limit: 16 << 20))
    }

    /// Source: Documentation/filesystems/proc.rst, /proc/PID/smaps.
    init(process: String, smaps: String) {
        self.init(process: process)
        var isGuest = false
        for line in smaps.split(separator: "\n") {
            let words = line.split(separator: " ")
            guard let first = words.first else { continue }
            if !first.hasSuffix(":") {
                isGuest = words.count > 5 && (words[5].hasPrefix("/memfd:") || words[5].hasPrefix("/martlet-"))
                continue
            }
            guard words.count > 1, let count = Int(words[1]) else { continue }
            switch (first, isGuest) {
            case ("Private_Clean:", false), ("Private_Dirty:", false): privateKiB += count
            case ("Pss:", false): proportionalKiB += count
            case ("Rss:", true): guestKiB += count
            default: break
            }
        }
    }
}

extension [ProcessMemory] {
    /// All of them together.
    public var total: ProcessMemory {
        reduce(into: ProcessMemory(process: "all")) { sum, one in
            sum.privateKiB += one.privateKiB
            sum.proportionalKiB += one.proportionalKiB
            sum.guestKiB = Swift.max(sum.guestKiB, one.guestKiB)
        }
    }
}
