import ArgumentParser
import Bench
import FoundationEssentials
import Glibc
import Hypervisor
import LinuxSystem
import Logging
import OCISpec
import Sandbox

struct BenchReclaim: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "reclaim",
        abstract: "Measure how much memory that a pod no longer needs goes back to the host.",
        discussion: """
            In a pod of each hypervisor that works here, a process takes memory and ends, and then a file is read that stays in \
            the guest's page cache. Prints what of that the host has again some seconds later. The pods count as idle after a \
            second, and keep 16 MiB of page cache. Needs root and a static busybox.
            """)

    @OptionGroup var global: GlobalOptions

    @Option(help: "What each use takes, MiB.")
    var mib = 1024

    @Option(help: "How long the memory may take to come back, seconds.")
    var seconds = 10

    @Option(help: "Only this side: kvm, template or qemu; may be repeated.")
    var only: [String] = []

    @Flag(help: "Print JSON instead of a table.")
    var json = false

    @Option(help: "A static busybox for the containers.")
    var busybox = "/bin/busybox"

    @Option(help: "Where the containers' files are.")
    var directory = "/var/tmp"

    private static let sides = [
        ("kvm", "kvm", false), ("template", "kvm", true), ("qemu", "qemu", false),
    ]

    func validate() throws {
        if !(16...65536).contains(mib) { throw ValidationError("--mib must be 16 to 65536") }
        if !(1...3600).contains(seconds) { throw ValidationError("--seconds must be 1 to 3600") }
        let names = Self.sides.map(\.0)
        for name in only where !names.contains(name) {
            throw ValidationError("--only \(name): not one of \(names.joined(separator: ", "))")
        }
    }

    func run() async throws {
        let report = try await global.reporting { logger in
            if geteuid() != 0 { throw BenchError("bench reclaim needs root") }
            try BenchDirectory.checkBusybox(busybox)
            let work = try BenchDirectory(in: directory)
            defer { work.remove() }
            var sides: [ReclaimBench.Side] = []
            var missing: [ReclaimReport.Missing] = []
            for (name, driver, usesTemplate) in Self.sides where only.isEmpty || only.contains(name) {
                do {
                    let file = try await configuration(name, driver, usesTemplate, work, logger)
                    sides.append(.init(name, configuration: file))
                } catch { missing.append(.init(name, "\(error)")) }
            }
            var bench = ReclaimBench(martlet: GuestImage.ownPath(), root: "\(work.path)/pods", mebibytes: mib)
            bench.seconds = seconds
            let bundle = try bundle(in: work)
            return try await onThread("bench") { [bench, sides, missing] in
                try bench.run(
                    sides, missing: missing, command: CommandLine.arguments.joined(separator: " "),
                    facts: [.init("host", hostDescription()), .init("machines", "\(machineMiB) MiB each")],
                    bundle: bundle, progress: BenchOptions.progress)
            }
        }
        try await global.reporting { _ in print(json ? try report.json() : report.table()) }
    }

    /// Room for one use, twice over.
    private var machineMiB: Int { 2 * mib + 512 }

    /// The configuration of a side, its file.
    private func configuration(
        _ name: String, _ driver: String, _ usesTemplate: Bool, _ work: BenchDirectory, _ logger: Logger
    ) async throws -> String {
        let template = BenchTemplate(
            directory: "\(work.path)/martlet-\(name)", configurationFile: global.config,
            settings: """
                vm.memory_mib = \(machineMiB)
                memory.idle_s = 1
                memory.floor_mib = 16

                """)
        return try await template.configuration(of: driver, usesTemplate: usesTemplate, logger).file
    }

    private func bundle(in work: BenchDirectory) throws -> String {
        let share = "\(work.path)/share"
        try FileManager.default.createDirectory(atPath: share, withIntermediateDirectories: true)
        let file = try OwnedDescriptor.open("\(share)/file", O_WRONLY | O_CREAT, mode: 0o644)
        try check("ftruncate", "\(share)/file", ftruncate(file.raw, mib << 20))
        return try work.bundle("reclaim", ReclaimBench.arguments) { spec in
            spec.mounts.append(Mount(destination: "/share", type: "bind", source: share, options: ["rbind", "ro"]))
        } fill: { rootfs in
            try BenchDirectory.install(busybox, as: ["sh", "sleep", "dd"], in: rootfs)
            try FileManager.default.createDirectory(atPath: "\(rootfs)/share", withIntermediateDirectories: false)
        }
    }
}
