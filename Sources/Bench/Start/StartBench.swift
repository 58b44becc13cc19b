import FoundationEssentials
import Glibc
public import Hypervisor
import LinuxSystem

/// Measures the start of a container by phases, and the start of its machine beside QEMU.
public struct StartBench: Sendable {
    /// Absolute path of `martlet`.
    public var martlet: String
    public var configurationFile: String?
    /// The machine that both sides boot.
    public var machine: VMConfiguration
    /// Absolute path of QEMU for a comparison; nil: none.
    public var qemu: String?
    /// Starts the machines whose starts are counted; nil where the driver is not the built-in VMM.
    public var starter: (any MachineStarter)?
    /// The starts of machines that are measured in turns; the last is the one that the others are compared with.
    public var kinds = [StartKind.cold]
    /// How many pods are started at once, one number after the other, to see what they take of the host's memory.
    public var podCounts: [Int] = []
    public var timeout = Duration.seconds(60)

    public init(martlet: String, configurationFile: String?, machine: VMConfiguration, qemu: String?) {
        self.martlet = martlet
        self.configurationFile = configurationFile
        self.machine = machine
        self.qemu = qemu
    }

    /// - Parameters:
    ///   - runs: the number of runs of each side that count. One more comes first.
    ///   - bundle: creates a bundle with the arguments of its process, and returns its directory.
    public func run(
        runs: Int, command: String, facts: [BenchReport.Fact], root: String, bundle: ([String]) throws -> String,
        progress: (String) -> Void
    ) async throws -> StartReport {
        let short = try bundle(["true"])
        var phases: [RunPhases] = []
        for number in 0...runs {
            progress("martlet run \(number)/\(runs)")
            let run = try RunPhases(
                martlet: martlet, bundle: short, root: root, configuration: configurationFile, timeout: timeout)
            // The first run does not count, because the page cache is cold.
            if number > 0 { phases.append(run) }
        }
        progress("memory of two idle pods")
        let idle = try bundle(["sh", "-c", "echo up; exec sleep 3600"])
        func idlePods(_ count: Int) throws -> (pods: IdlePods, first: [ProcessMemory]) {
            try IdlePods.measure(
                count, martlet: martlet, bundle: idle, root: root, configuration: configurationFile,
                timeout: timeout + .seconds(10 * count))
        }
        let memory = try idlePods(2).first
        var densities: [IdlePods] = []
        for count in podCounts {
            progress("\(count) pods at once")
            densities.append(try idlePods(count).pods)
        }
        let touched = starter == nil ? nil : try await touchedMemory(progress)
        var start: Comparison?
        var tiny: Comparison?
        if let qemu {
            start = try await compare("Linux, until the agent is ready", linux, qemu, runs: runs, progress)
            let image = "\(root)/tiny-guest"
            try Data(TinyGuest.image).write(to: URL(filePath: image))
            tiny = try await compare("a guest that only writes a port", tinyGuest(image), qemu, runs: runs, progress)
        }
        let starts = try await countStarts(runs: runs, progress)
        guard let total = Samples(phases.map(\.total)) else { throw BenchError("no runs") }
        var report = StartReport(
            command: command, facts: facts, run: total, phases: Self.samples(phases), memory: memory,
            touched: touched, start: start, startOfTinyGuest: tiny)
        report.densities = densities
        report.starts = starts
        return report
    }

    /// Starts machines in turns.
    private func countStarts(runs: Int, _ progress: (String) -> Void) async throws -> [StartReport.MachineStart] {
        guard let starter else { return [] }
        if kinds != [.cold] {
            progress("making the template")
            try await starter.makeTemplate()
        }
        let starts = TemplateStarts(
            starter: starter,
            bootFiles: [machine.kernel] + (machine.bootInitramfs.map { [$0] } ?? []))
        let results = try await Rounds.run(runs, of: kinds) { round, kind in
            progress("a machine \(kind.rawValue), \(round)/\(runs)")
            return try await starts.measure(kind)
        }
        return zip(kinds, results).compactMap { kind, results in
            guard let samples = Samples(results.map(\.milliseconds)) else { return nil }
            return .init(
                kind: kind.rawValue, milliseconds: samples, counts: StartCounts.medians(results.map(\.counts)))
        }
    }

    private func touchedMemory(_ progress: (String) -> Void) async throws -> StartReport.TouchedMemory {
        progress("memory that a guest touches")
        var machine = machine
        let asConfigured = try await TouchedMemory.measure(machine, timeout: timeout)
        machine.hugePages = false
        return .init(
            asConfigured: asConfigured, inSmallPages: try await TouchedMemory.measure(machine, timeout: timeout))
    }

    private static func samples(_ runs: [RunPhases]) -> [StartReport.Phase] {
        guard let first = runs.first else { return [] }
        return first.phases.indices.compactMap { index in
            Samples(runs.map { $0.phases[index].milliseconds }).map {
                .init(name: first.phases[index].name, samples: $0)
            }
        }
    }

    /// The Linux guest that both sides boot. It has no file device, because QEMU would need another process for it.
    private var linux: BootedGuest {
        var vm = machine
        vm.hasFiles = false
        vm.kernelArguments = ["console=hvc0", "quiet", "panic=-1", "pci=off"]
        return BootedGuest(machine: vm, isTiny: false, timeout: timeout)
    }

    private func tinyGuest(_ image: String) -> BootedGuest {
        var vm = linux.machine
        vm.kernel = image
        vm.initramfs = nil
        vm.rootImage = nil
        vm.debugConsole = true
        return BootedGuest(machine: vm, isTiny: true, timeout: timeout)
    }

    private func compare(
        _ name: String, _ guest: BootedGuest, _ qemu: String, runs: Int, _ progress: (String) -> Void
    ) async throws -> Comparison {
        let hasVsock = access("/dev/vhost-vsock", R_OK | W_OK) == 0
        let results = try await Rounds.run(runs, of: [false, true]) { round, isQEMU in
            progress("\(name), \(round)/\(runs), \(StartReport.sides[isQEMU ? 1 : 0])")
            if !isQEMU { return try await BuiltInStart.measure(guest) }
            return try await QEMUStart.measure(guest, executable: qemu, vsock: hasVsock ? 1000 + round : nil)
        }
        let sides = results.compactMap { Samples($0) }
        return Comparison(name, unit: "ms", better: .lower, sides: sides)
    }
}
