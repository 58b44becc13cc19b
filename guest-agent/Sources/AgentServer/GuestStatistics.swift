import AgentAPI
import LinuxSystem

extension GuestMachine {
    /// What the guest as a whole uses. What the kernel has no file for stays empty.
    func statistics() -> AgentGuestStatsResponse {
        .with {
            $0.memory = MemoryFacts.read()
            $0.pressure = ["cpu", "memory", "io"].compactMap(Self.pressure)
        }
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
