import FoundationEssentials
import Glibc
public import Hypervisor
import LinuxSystem

/// How a machine comes to be.
public enum StartKind: String, Sendable {
    /// It was restored before, and held ready.
    case pool = "from the pool"
    case template = "from the template"
    case cold
}

/// What starts the machines that are measured.
public protocol MachineStarter: Sendable {
    /// Makes the template.
    func makeTemplate() async throws
    /// Does what comes before a start.
    ///
    /// - Returns: the start; its result is the machine, and the nanoseconds from the start of its processes, or from the moment at which
    ///   it is taken from the pool, until its agent's first answer.
    func prepare(_ kind: StartKind) async throws
        -> @Sendable () async throws -> (machine: any VirtualMachine, nanoseconds: UInt64)
}

/// Machines that boot and machines that start in other ways, in turns.
struct TemplateStarts {
    let starter: any MachineStarter
    /// What a boot copies: files of the host.
    let bootFiles: [String]
    /// nil where this kernel does not count. One for all starts: each that begins or ends has the kernel change its code.
    let counters = try? KernelCounters()

    struct Result {
        var milliseconds: Double
        var counts: StartCounts
    }

    /// Starts a machine, and ends it when its agent has answered.
    func measure(_ kind: StartKind) async throws -> Result {
        let start = try await starter.prepare(kind)
        let before = counters?.read() ?? [:]
        let (machine, nanoseconds) = try await start()
        let after = counters?.read()
        let memory = try machine.processes.first { $0.name == "martlet-vmm" }
            .map { try ProcessMemory(process: $0.name, pid: $0.pid) }
        machine.kill(.ended("measured"))
        _ = await machine.end()
        let copied = kind == .cold ? bootFiles.map(Self.mebibytes).reduce(0, +) : 0
        // KVM's counters go down when another machine ends.
        let events = (after ?? [:]).merging(before) { $0 > $1 ? $0 - $1 : 0 }
        let counts = StartCounts(
            events: Dictionary(uniqueKeysWithValues: events.map { ("\($0.key)", $0.value) }),
            copiedMiB: copied, guestMiB: Double(memory?.guestOwnKiB ?? 0) / 1024,
            sharedMiB: Double((memory?.guestKiB ?? 0) - (memory?.guestOwnKiB ?? 0)) / 1024,
            modelled: events.isEmpty ? [:] : UnitCosts.model(events, copiedMiB: copied, boots: kind == .cold))
        return Result(milliseconds: Double(nanoseconds) / 1e6, counts: counts)
    }

    private static func mebibytes(_ path: String) -> Double {
        var facts = stat()
        return stat(path, &facts) == 0 ? Double(facts.st_size) / 1_048_576 : 0
    }
}

extension StartCounts {
    /// The median of each count.
    static func medians(_ all: [StartCounts]) -> StartCounts? {
        guard let first = all.first else { return nil }
        func median(_ values: [Double]) -> Double { Samples(values)?.median ?? 0 }
        return StartCounts(
            events: Dictionary(
                uniqueKeysWithValues: first.events.keys.map { key in
                    (key, UInt64(median(all.map { Double($0.events[key] ?? 0) })))
                }),
            copiedMiB: median(all.map(\.copiedMiB)), guestMiB: median(all.map(\.guestMiB)),
            sharedMiB: median(all.map(\.sharedMiB)),
            modelled: Dictionary(
                uniqueKeysWithValues: first.modelled.keys.map { key in (key, median(all.map { $0.modelled[key] ?? 0 }))
                }))
    }
}
