import ArgumentParser
import Bench
import FoundationEssentials
import Glibc
import Hypervisor
import OCISpec
import Sandbox

struct BenchStart: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "start",
        abstract: "Measure the start of a container, phase by phase, and the memory of its processes.",
        discussion: """
            Runs a container that ends at once, with the hypervisor and machine of the configuration. With --against qemu, the \
            built-in VMM and a QEMU microvm boot the same guest on KVM in turns; both times run from the start of the \
            process to the guest's first message. Needs root and a static busybox.
            """)

    /// Starts machines of the plan's shape.
    private struct Starter: MachineStarter {
        let maker: TemplateMaker
        let vcpus: Int
        let memoryMiB: Int

        func makeTemplate() async throws { _ = try await maker.make(vcpus: vcpus, memoryMiB: memoryMiB) }

        func prepare(_ kind: StartKind) async throws
            -> @Sendable () async throws -> (machine: any VirtualMachine, nanoseconds: UInt64)
        {
            let start = try await maker.prepareStart(vcpus: vcpus, memoryMiB: memoryMiB, kind.source)
            return {
                let ready = try await start()
                return (ready.machine, ready.startTime)
            }
        }
    }

    enum ComparedHypervisor: String, ExpressibleByArgument, CaseIterable { case qemu }

    @OptionGroup var global: GlobalOptions
    @OptionGroup var bench: BenchOptions

    @Option(help: "Also boot the same guest with this hypervisor, in turns: qemu.")
    var against: ComparedHypervisor?

    @Flag(help: "Also start machines from a template and cold, in turns; needs the built-in VMM.")
    var template = false

    @Flag(help: "With --template: also take machines from a pool, in turns.")
    var pool = false

    @Option(
        parsing: .upToNextOption,
        help: "Also start so many pods at once, one number after the other, and print what they take: 1 10 30.")
    var pods: [Int] = []

    @Option(help: "A static busybox for the container.")
    var busybox = "/bin/busybox"

    func validate() throws {
        guard !pool || template else { throw ValidationError("--pool goes with --template") }
        guard pods.allSatisfy({ (1...1000).contains($0) }) else { throw ValidationError("--pods: each from 1 to 1000") }
    }

    func run() async throws {
        let report = try await global.reporting { logger in
            let work = try BenchDirectory()
            defer { work.remove() }
            let configuration = try Configuration.load(file: global.config)
            let plan = try SandboxPlan(
                id: "bench", bundle: Bundle(directory: work.bundle(["true"], busybox: busybox)),
                configuration: configuration)
            let facts = HostFacts.of(configuration)
            if against != nil, let objection = facts.kvmObjection {
                throw BenchError("--against qemu compares machines on KVM, but \(objection)")
            }
            var start = StartBench(
                martlet: GuestImage.ownPath(), configurationFile: global.config, machine: plan.machine,
                qemu: try against.map { _ in try facts.qemuPath() })
            if plan.driver.isBuiltIn {
                var own = configuration
                own.template.directory = "\(work.path)/templates"
                start.starter = Starter(
                    maker: TemplateMaker(own, logger: logger), vcpus: plan.machine.vcpus,
                    memoryMiB: plan.machine.memoryMiB)
            } else if template {
                throw BenchError("--template needs the built-in VMM, but the driver is \(plan.driver)")
            }
            start.kinds = (pool ? [.pool] : []) + (template ? [.template] : []) + [.cold]
            start.podCounts = pods
            return try await start.run(
                runs: bench.runs, command: CommandLine.arguments.joined(separator: " "),
                facts: [
                    .init("host", hostDescription()), .init("driver", "\(plan.driver)"),
                    .init("kernel", plan.machine.kernel),
                    .init("machine", "\(plan.machine.vcpus) vCPUs, \(plan.machine.memoryMiB) MiB"),
                ],
                root: work.path, bundle: { try work.bundle($0, busybox: busybox) }, progress: BenchOptions.progress)
        }
        try await global.reporting { _ in
            try bench.show(page: report.page) { bench.json ? try report.json() : report.table() }
        }
    }
}

extension StartKind {
    fileprivate var source: TemplateMaker.Source {
        switch self {
        case .pool: .pool
        case .template: .template
        case .cold: .boot
        }
    }
}
