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
            Runs a container that ends at once, with the hypervisor and machine of the configuration. With --against qemu the \
            built-in VMM and a microvm of QEMU's boot the same guest on KVM in turns; both clocks run from the start of the \
            process to the guest's first word. Needs root and a static busybox.
            """)

    enum Opponent: String, ExpressibleByArgument, CaseIterable { case qemu }

    @OptionGroup var global: GlobalOptions
    @OptionGroup var bench: BenchOptions

    @Option(help: "Boot the same guest with this too, in turns: qemu.")
    var against: Opponent?

    @Option(help: "What the container is made of.")
    var busybox = "/bin/busybox"

    func run() async throws {
        let report = try await global.reporting { logger in
            let work = try WorkDirectory()
            defer { work.remove() }
            let configuration = try Configuration.load(file: global.config)
            let plan = try SandboxPlan(
                id: "bench", bundle: Bundle(directory: work.bundle(["true"], busybox)), configuration: configuration)
            let facts = HostFacts.of(configuration)
            if against != nil, let objection = facts.kvmObjection {
                throw BenchError("--against qemu compares machines on KVM, but \(objection)")
            }
            let start = StartBench(
                martlet: GuestImage.ownPath(), configurationFile: global.config, machine: plan.machine,
                qemu: try against.map { _ in try facts.qemuPath() })
            return try await start.run(
                runs: bench.runs, command: CommandLine.arguments.joined(separator: " "),
                facts: [
                    .init("host", hostWords()), .init("driver", "\(plan.driver)"), .init("kernel", plan.machine.kernel),
                    .init("machine", "\(plan.machine.vcpus) processors, \(plan.machine.memoryMiB) MiB"),
                ],
                root: work.path, bundle: { try work.bundle($0, busybox) }, progress: BenchOptions.progress)
        }
        try await global.reporting { _ in
            try bench.show(page: report.page) { bench.json ? try report.json() : report.table() }
        }
    }
}

/// A directory for bundles and the state of pods, removed in the end.
private struct WorkDirectory {
    let path: String

    init() throws {
        var template = Array("/tmp/martlet-bench.XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw BenchError("mkdtemp: \(String(cString: strerror(errno)))") }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    func remove() {
        do { try FileManager.default.removeItem(atPath: path) } catch {
            BenchOptions.progress("remove \(path): \(error)")
        }
    }

    /// A bundle of busybox that runs `arguments`; answers its directory.
    func bundle(_ arguments: [String], _ busybox: String) throws -> String {
        let bundle = "\(path)/bundle-\(arguments.count)"
        if FileManager.default.fileExists(atPath: bundle) { return bundle }
        let files = FileManager.default
        for directory in ["bin", "dev", "proc", "sys", "tmp", "etc"] {
            try files.createDirectory(atPath: "\(bundle)/rootfs/\(directory)", withIntermediateDirectories: true)
        }
        try files.copyItem(atPath: busybox, toPath: "\(bundle)/rootfs/bin/busybox")
        for name in ["sh", "true", "echo", "sleep"] {
            try files.createSymbolicLink(atPath: "\(bundle)/rootfs/bin/\(name)", withDestinationPath: "busybox")
        }
        var spec = Spec.standard()
        spec.process?.terminal = false
        spec.process?.args = arguments
        spec.linux?.resources = nil
        try Data(JSON.encode(spec, indented: true)).write(to: URL(filePath: "\(bundle)/config.json"))
        return bundle
    }
}
