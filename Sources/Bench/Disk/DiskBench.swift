import FoundationEssentials
import GuestKernel
public import Hypervisor
import LinuxSystem

/// `martlet bench disk`: a guest reads and writes one file of the host through Martlet's disk and through QEMU's own, in turns.
///
/// Without KVM one guest under QEMU has all disks. With KVM, Martlet's is that of a guest on the built-in VMM, and QEMU's are those of
/// the same guest under QEMU.
///
/// The guest goes past its page cache, and QEMU past the host's (`cache=none`).
public struct DiskBench: Sendable {
    public var driver: QEMUDriver
    /// The guest: its kernel, the initramfs with `martlet-bench-guest` as /init, vCPUs and memory.
    public var machine: VMConfiguration
    public var workload = DiskWorkload()
    /// Size of the file, MiB.
    public var sizeMiB = 256
    /// The directory of the file.
    public var directory = "/var/tmp"
    /// How long the guest may take beyond its measurements.
    public var timeout = Duration.seconds(120)

    public init(driver: QEMUDriver, machine: VMConfiguration) {
        self.driver = driver
        self.machine = machine
    }

    /// Boots the guest, which measures each disk once a round.
    ///
    /// - Parameters:
    ///   - command: what the report says was run.
    ///   - progress: called with a message after each round.
    public func run(
        rounds: Int, command: String, progress: @escaping @Sendable (String) -> Void
    ) async throws -> BenchReport {
        guard rounds > 0 else { throw BenchError("\(rounds) rounds: there must be at least one") }
        _ = try KernelImage.inspect(machine.kernel)
        let facts = gatherFacts()
        let file = try DiskFile(in: directory, mib: sizeMiB)
        defer { file.remove() }
        let guests: [[DiskSide]] =
            driver.accelerator == .kvm
            ? [[.builtIn], [.qemuRing, .qemuThreads]] : [[.martlet, .qemuRing, .qemuThreads]]
        // A round comes before the first that counts, because what the host has to allocate is not there yet. Guests that take
        // turns are booted for each round, one guest once for all.
        let boots = guests.count > 1
        let plan = DiskRun.Plan(
            driver: driver, machine: machine, path: file.path, workload: workload, rounds: boots ? 1 : rounds + 1,
            timeout: timeout, takesTurns: boots)
        let results = try await Rounds.run(boots ? rounds : 0, of: guests, keepsFirst: !boots) { round, sides in
            let result = try await onThread("bench") {
                try DiskRun.perform(plan, sides) { if !boots { progress("round \($0 - 1) of \(rounds)") } }
            }
            if boots { progress("round \(round) of \(rounds), \(sides.map(\.rawValue).joined(separator: " and "))") }
            return result
        }
        let sides = guests.flatMap { $0 }
        let phases = results.flatMap { $0.flatMap(\.phases) }
        let comparisons = try Self.compare(phases, sides, rounds: rounds, warmUps: boots ? 0 : 1)
        var ratios: [String: Double] = [:]
        for comparison in comparisons { ratios[comparison.name] = comparison.ratioToBest }
        let mode = results[0].first?.mode.map { [BenchReport.Fact("Martlet's disk", "\($0)")] } ?? []
        return BenchReport(
            title: "A disk of the guest", command: command, sides: sides.map(\.rawValue), facts: facts + mode,
            comparisons: comparisons, ratios: ratios)
    }

    /// - Parameters:
    ///   - phases: of all rounds, in their order.
    ///   - rounds: that count.
    ///   - warmUps: rounds that come before them.
    static func compare(
        _ phases: [PhaseRecorder.Phase], _ sides: [DiskSide], rounds: Int, warmUps: Int
    ) throws -> [Comparison] {
        try DiskWorkload.patterns.map { pattern in
            let sides = try sides.map { side in
                let name = DiskRun.phase(pattern, side)
                let rates = phases.filter { $0.name == name }.map { $0.rate / pattern.divisor }
                guard rates.count == rounds + warmUps, let samples = Samples(Array(rates.dropFirst(warmUps))) else {
                    throw BenchError("\(name) was measured \(rates.count) times, not \(rounds + warmUps)")
                }
                return samples
            }
            return Comparison(pattern.name, unit: pattern.unit, better: .higher, sides: sides)
        }
    }

    private func gatherFacts() -> [BenchReport.Fact] {
        [
            .init("host", hostDescription()),
            .init(
                "guest",
                "\(machine.vcpus) vCPUs, \(machine.memoryMiB) MiB, \(driver.accelerator.rawValue), \(machine.kernel)"
            ),
            .init(
                "work",
                "sequential with 128 KiB, random with 4 KiB, \(workload.milliseconds) ms each; a file of \(sizeMiB) MiB in \(directory), QEMU's disks with cache=none"
            ),
        ]
    }
}
