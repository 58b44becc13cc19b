import AgentAPI
import LinuxSystem

extension GuestMachine {
    /// What the guest as a whole uses. What the kernel has no file for stays empty.
    func statistics() -> AgentGuestStatsResponse {
        .with {
            $0.memory = Self.memory()
            $0.pressure = ["cpu", "memory", "io"].compactMap(Self.pressure)
        }
    }

    /// `MemAvailable:  1234 kB` in each line of /proc/meminfo.
    private static func memory() -> [String: UInt64] {
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

    /// `some avg10=0.00 avg60=0.00 avg300=0.00 total=12` and the same with `full` (Documentation/accounting/psi.rst).
    private static func pressure(_ resource: String) -> AgentPressureStats? {
        guard let text = try? readText("/proc/pressure/\(resource)"), !text.isEmpty else { return nil }
        func total(_ kind: String) -> UInt64 {
            let line = text.split(separator: "\n").first { $0.hasPrefix("\(kind) ") }
            let field = line?.split(separator: " ").last { $0.hasPrefix("total=") }
            return field.flatMap { UInt64($0.dropFirst("total=".count)) } ?? 0
        }
        return .with {
            $0.resource = resource
            $0.some = total("some")
            $0.full = total("full")
        }
    }
}
