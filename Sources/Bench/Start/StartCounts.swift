import FoundationEssentials
import Glibc
import LinuxSystem

/// What a machine's start made the host do, from the start of its processes to its agent's first answer.
public struct StartCounts: Sendable, Equatable, Codable {
    /// How often each event was, by its name; empty where this kernel does not count.
    public var events: [String: UInt64]
    /// What was copied into the guest's memory, MiB: the kernel and the initramfs; of a template nothing.
    public var copiedMiB: Double
    /// The guest's memory that this machine alone has, MiB.
    public var guestMiB: Double
    /// The guest's memory that it has together with other machines of the template, MiB.
    public var sharedMiB: Double
    /// Milliseconds on hardware, by their cause, as `UnitCosts` has them; empty where this kernel does not count.
    public var modelled: [String: Double]

    public var modelledMilliseconds: Double? { modelled.isEmpty ? nil : modelled.values.reduce(0, +) }

    private enum CodingKeys: String, CodingKey {
        case events, modelled
        case copiedMiB = "copied_mib"
        case guestMiB = "guest_touched_mib"
        case sharedMiB = "guest_shared_mib"
    }
}

/// What things cost on hardware (a server's CPU of about 3 GHz with VMX or SVM), for a clock that an emulator does not distort.
/// docs/start.md has the sources.
enum UnitCosts {
    /// Microseconds of an event. Kinds of exits cost that on top of an exit.
    static let microseconds: [KernelCounters.Event: Double] = [
        .exits: 1.0, .portExits: 1.5, .registerExits: 1.5, .haltExits: 0.5, .guestFaults: 1.0, .systemCalls: 0.25,
        .contextSwitches: 2.0, .programs: 800, .pages: 0.25,
    ]
    /// Milliseconds of a copied MiB, without the pages that it needs.
    static let copiedMiB = 0.1
    /// Milliseconds that a guest's kernel takes from its first instruction to the agent, besides exits and faults: what remains of a
    /// boot when it is restored is nothing.
    static let boot = 55.0

    /// The milliseconds that a start takes, by their cause.
    static func model(_ counts: [KernelCounters.Event: UInt64], copiedMiB copied: Double, boots: Bool) -> [String:
        Double]
    {
        var parts: [String: Double] = [:]
        for (event, cost) in microseconds { parts["\(event)"] = Double(counts[event] ?? 0) * cost / 1000 }
        parts["copies"] = copied * copiedMiB
        if boots { parts["boot"] = boot }
        return parts
    }
}
