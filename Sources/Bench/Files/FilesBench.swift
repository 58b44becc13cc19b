import CLinux
import FoundationEssentials
import Glibc
import GuestKernel
public import Hypervisor
import LinuxSystem

/// `martlet bench files`: a guest performs the same file operations on a share that Martlet's file device and Debian's virtiofsd
/// serve in turns.
public struct FilesBench: Sendable {
    public var driver: QEMUDriver
    /// The guest: its kernel, the initramfs with `martlet-bench-guest` as /init, vCPUs and memory.
    public var machine: VMConfiguration
    public var workload = FilesWorkload()
    /// Absolute path of virtiofsd.
    public var virtiofsd = "/usr/lib/qemu/virtiofsd"
    /// The directory of the share's files. It is in memory, so that no disk affects the figures.
    public var directory = "/dev/shm"
    /// How long one guest may take.
    public var timeout = Duration.seconds(300)

    public init(driver: QEMUDriver, machine: VMConfiguration) {
        self.driver = driver
        self.machine = machine
    }

    /// Measures each server once a round.
    ///
    /// - Parameters:
    ///   - command: what the report says was run.
    ///   - progress: called with a message after each guest.
    public func run(
        rounds: Int, command: String, progress: @Sendable (String) -> Void
    ) async throws -> BenchReport {
        guard access(virtiofsd, X_OK) == 0 else {
            throw BenchError("virtiofsd \(virtiofsd): not an executable file (Debian: apt install qemu-system-common)")
        }
        guard rounds > 0 else { throw BenchError("\(rounds) rounds: there must be at least one") }
        _ = try KernelImage.inspect(machine.kernel)
        var machine = machine
        machine.kernelArguments += workload.kernelArguments
        let plan = FilesRun.Plan(
            driver: driver, machine: machine, virtiofsd: virtiofsd, directory: directory,
            memoryMiB: machine.memoryMiB + workload.sizeMiB, timeout: timeout)
        let facts = gatherFacts()
        let results = try await Rounds.run(rounds, of: FileServerKind.allCases) { round, kind in
            let phases = try await onThread("bench") { try FilesRun.perform(plan, kind) }
            let figures = phases.map { "\($0.name) \(Figures.short(Double($0.nanoseconds) / 1e9)) s" }
            progress("round \(round) of \(rounds), \(kind.rawValue): \(figures.joined(separator: ", "))")
            return phases
        }
        return BenchReport(
            title: "Files through a share", command: command, sides: FileServerKind.allCases.map(\.rawValue),
            facts: facts, comparisons: try Self.compare(results))
    }

    /// - Parameter results: for each server and each round, the phases.
    static func compare(_ results: [[[PhaseRecorder.Phase]]]) throws -> [Comparison] {
        try FilesWorkload.figures.map { figure in
            let sides = try results.map { rounds in
                let rates = try rounds.map { phases in
                    guard let phase = phases.first(where: { $0.name == figure.phase }) else {
                        throw BenchError("the guest did no \(figure.phase)")
                    }
                    return phase.rate / figure.divisor
                }
                guard let samples = Samples(rates) else { throw BenchError("nothing was measured") }
                return samples
            }
            return Comparison(figure.name, unit: figure.unit, better: .higher, sides: sides)
        }
    }

    private func gatherFacts() -> [BenchReport.Fact] {
        [
            .init("host", hostDescription()),
            .init(
                "guest",
                "\(machine.vcpus) vCPUs, \(machine.memoryMiB) MiB, QEMU with \(driver.accelerator.rawValue), \(machine.kernel)"
            ),
            .init(
                "work",
                "\(workload.sizeMiB) MiB, \(workload.operations) operations of 4 KiB, \(workload.files) files of \(workload.fileBytes) bytes, in \(directory)"
            ),
        ]
    }
}

/// The file servers that are compared.
enum FileServerKind: String, CaseIterable, Sendable {
    case martlet = "martlet-device"
    case virtiofsd
}
