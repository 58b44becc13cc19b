import ArgumentParser
import Bench
import FoundationEssentials
import Hypervisor
import OCISpec
import Sandbox

struct BenchStorm: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "storm",
        abstract: "Measure how a pod fares while another one does what it can to disturb the node.",
        discussion: """
            Runs `exec true` in a pod that sleeps, while a privileged container of another pod storms: listening ports, OOM \
            kills, output, console lines, files of a share. Beside it stand the host's memory and threads that the storming \
            pod takes. Both pods have the hypervisor and machine of the configuration. Needs root and a static busybox.
            """)

    @OptionGroup var global: GlobalOptions

    @Option(name: [.customShort("n"), .long], help: "How often `exec true` is run in each storm.")
    var samples = 20

    @Option(help: "Only this storm, beside quiet and busy; may be repeated.")
    var only: [String] = []

    @Flag(help: "Print JSON instead of a table.")
    var json = false

    @Option(help: "A static busybox for the containers.")
    var busybox = "/bin/busybox"

    func validate() throws {
        if samples < 1 { throw ValidationError("-n must be at least 1") }
        let names = Storm.all.map(\.name)
        for name in only where !names.contains(name) {
            throw ValidationError("--only \(name): not one of \(names.joined(separator: ", "))")
        }
    }

    func run() async throws {
        let storms = Storm.all.enumerated().filter { $0 < 2 || only.isEmpty || only.contains($1.name) }.map(\.element)
        let report = try await global.reporting { _ in
            let work = try BenchDirectory()
            defer { work.remove() }
            let configuration = try Configuration.load(file: global.config)
            let plan = try SandboxPlan(
                id: "bench", bundle: Bundle(directory: bundle(storms[0], in: work)), configuration: configuration)
            var bench = StormBench(
                martlet: GuestImage.ownPath(), configurationFile: global.config, root: "\(work.path)/pods",
                machineMiB: plan.machine.memoryMiB)
            bench.samples = samples
            return try await bench.run(
                storms, command: CommandLine.arguments.joined(separator: " "),
                facts: [
                    .init("host", hostDescription()), .init("driver", "\(plan.driver)"),
                    .init("machine", "\(plan.machine.vcpus) vCPUs, \(plan.machine.memoryMiB) MiB each"),
                ],
                bundle: { try bundle($0, in: work) }, progress: BenchOptions.progress)
        }
        try await global.reporting { _ in print(json ? try report.json() : report.table()) }
    }

    private static let capabilities = [
        "CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_MKNOD", "CAP_NET_BIND_SERVICE", "CAP_SYS_ADMIN", "CAP_SYS_RESOURCE",
        "CAP_SYSLOG",
    ]

    /// A bundle whose container may do what it likes in its machine, and has a share with 20000 files.
    private func bundle(_ storm: Storm, in work: BenchDirectory) throws -> String {
        let share = "\(work.path)/share-\(storm.name)"
        try Self.fill(share)
        return try work.bundle(storm.name, storm.arguments) { spec in
            spec.process?.capabilities = Capabilities(
                bounding: Self.capabilities, effective: Self.capabilities, permitted: Self.capabilities)
            spec.linux?.maskedPaths = []
            spec.linux?.readonlyPaths = []
            var resources = Linux.Resources()
            resources.devices = [.init(allow: true, access: "rwm")]
            spec.linux?.resources = resources
            for index in spec.mounts.indices where spec.mounts[index].type == "cgroup" {
                spec.mounts[index].options.removeAll { $0 == "ro" }
            }
            spec.mounts.append(Mount(destination: "/tmp", type: "tmpfs", source: "tmpfs"))
            spec.mounts.append(Mount(destination: "/share", type: "bind", source: share, options: ["rbind", "rw"]))
        } fill: { rootfs in
            let names = ["dd", "echo", "ls", "mkdir", "mknod", "mv", "nc", "rm", "sh", "sleep", "true", "yes"]
            try BenchDirectory.install(busybox, as: names, in: rootfs)
            try FileManager.default.createDirectory(atPath: "\(rootfs)/share", withIntermediateDirectories: false)
        }
    }

    /// Makes 200 directories with 100 empty files each.
    private static func fill(_ share: String) throws {
        let files = FileManager.default
        if files.fileExists(atPath: share) { return }
        for directory in 0..<200 {
            let path = "\(share)/\(directory)"
            try files.createDirectory(atPath: path, withIntermediateDirectories: true)
            for file in 0..<100 {
                guard files.createFile(atPath: "\(path)/\(file)", contents: nil) else {
                    throw BenchError("create \(path)/\(file)")
                }
            }
        }
    }
}
