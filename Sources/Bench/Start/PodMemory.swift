import Glibc
import LinuxSystem

/// The memory of a host process, KiB. The guest's memory is counted separately.
public struct ProcessMemory: Sendable, Equatable, Codable {
    public var process: String
    /// Private_Clean and Private_Dirty: the memory that would be free if this process ended.
    public var privateKiB: Int
    /// Pss: private pages and a share of each shared page.
    public var proportionalKiB: Int
    /// The Rss of mappings of guest memory.
    public var guestKiB: Int
    /// Of that, what this machine alone has: all of a memory file, or the pages of a template that the guest has written to.
    public var guestOwnKiB: Int

    private enum CodingKeys: String, CodingKey {
        case process
        case privateKiB = "private_kib"
        case proportionalKiB = "proportional_kib"
        case guestKiB = "guest_kib"
        case guestOwnKiB = "guest_own_kib"
    }

    init(process: String, privateKiB: Int = 0, proportionalKiB: Int = 0, guestKiB: Int = 0, guestOwnKiB: Int = 0) {
        self.process = process
        self.privateKiB = privateKiB
        self.proportionalKiB = proportionalKiB
        self.guestKiB = guestKiB
        self.guestOwnKiB = guestOwnKiB
    }

    /// Reads /proc/PID/smaps. Mapped memory files are guest memory, and so is a template's `memory`: these processes map no others.
    init(process: String, pid: Int32) throws {
        self.init(process: process, smaps: try readText("/proc/\(pid)/smaps", limit: 16 << 20))
    }

    /// Source: Documentation/filesystems/proc.rst, /proc/PID/smaps.
    init(process: String, smaps: String) {
        self.init(process: process)
        var isGuest = false
        var isTemplate = false
        for line in smaps.split(separator: "\n") {
            let words = line.split(separator: " ")
            guard let first = words.first else { continue }
            if !first.hasSuffix(":") {
                isTemplate = words.count > 5 && words[5].hasSuffix("/memory")
                isGuest =
                    isTemplate || words.count > 5 && (words[5].hasPrefix("/memfd:") || words[5].hasPrefix("/martlet-"))
                continue
            }
            guard words.count > 1, let count = Int(words[1]) else { continue }
            switch (first, isGuest) {
            case ("Private_Clean:", false), ("Private_Dirty:", false): privateKiB += count
            case ("Pss:", false): proportionalKiB += count
            case ("Rss:", true):
                guestKiB += count
                if !isTemplate { guestOwnKiB += count }
            case ("Anonymous:", true) where isTemplate: guestOwnKiB += count
            default: break
            }
        }
    }
}

extension [ProcessMemory] {
    /// The total of all processes.
    public var total: ProcessMemory {
        reduce(into: ProcessMemory(process: "all")) { sum, one in
            sum.privateKiB += one.privateKiB
            sum.proportionalKiB += one.proportionalKiB
            sum.guestKiB = Swift.max(sum.guestKiB, one.guestKiB)
            sum.guestOwnKiB = Swift.max(sum.guestOwnKiB, one.guestOwnKiB)
        }
    }
}
