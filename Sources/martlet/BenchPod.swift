import ArgumentParser
import Bench
import FoundationEssentials
import Glibc
import Hypervisor
import LinuxSystem
import Logging
import Sandbox

struct BenchPod: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pod",
        abstract: "Compare the start and the memory of Kubernetes pods with those of other runtimes.",
        discussion: """
            Sends CRI requests to one containerd for a pod with a container, with the runtimes in turns: RunPodSandbox, \
            CreateContainer, StartContainer. Then it reads the memory of all host processes of the pod, and removes the pod. \
            Without --address it starts a containerd of its own in a network namespace of its own, with an image of busybox, \
            Martlet's shim beside this program, runc, and runsc if its containerd-shim-runsc-v1 is installed. With the \
            built-in VMM, pods of Martlet are measured that boot, that start from a template, and that take a machine of the \
            pool. Needs root; without --address also containerd and the CNI plugins.
            """)

    @OptionGroup var global: GlobalOptions
    @OptionGroup var bench: BenchOptions

    @Option(help: "The CRI socket of a containerd that runs; its configuration must have the runtimes and a network.")
    var address: String?

    @Option(
        name: .customLong("handler"),
        help:
            "A runtime's name in the engine's configuration; may be repeated. The others are compared with the first."
    )
    var handlers: [String] = []

    @Option(help: "With --address: an image that the engine has, with sleep in it.")
    var image: String?

    @Option(help: "A static busybox for the image that is built without --address.")
    var busybox = "/bin/busybox"

    @Option(help: "Where the own containerd keeps its files; must be a file system that supports overlayfs.")
    var directory = "/var/tmp"

    @Option(help: "The directory of the CNI plugins.")
    var plugins: String?

    func validate() throws {
        if address != nil, image == nil { throw ValidationError("--address needs an --image that the engine has") }
    }

    func run() async throws {
        let report = try await global.reporting { logger in
            let configuration = try Configuration.load(file: global.config)
            let driver = try HostFacts.of(configuration)
                .chooseDriver(configuration.hypervisor.rawValue, accelerator: configuration.qemu.accelerator.rawValue)
            let facts: [BenchReport.Fact] = [
                .init("host", hostDescription()), .init("martlet", "\(driver)"),
            ]
            guard let address else { return try await measureInTemporaryContainerd(driver, facts, logger) }
            let selected = handlers.isEmpty ? ["martlet", "runc"] : handlers
            return try await measure(
                PodBench(address: address, sides: selected.map { .init($0, handler: $0) }, image: image ?? ""), facts)
        }
        try await global.reporting { _ in try bench.show(report) }
    }

    private func measure(_ pods: PodBench, _ facts: [BenchReport.Fact]) async throws -> BenchReport {
        try await pods.run(
            rounds: bench.runs, command: CommandLine.arguments.joined(separator: " "), facts: facts,
            progress: BenchOptions.progress)
    }

    private func measureInTemporaryContainerd(
        _ driver: DriverChoice, _ facts: [BenchReport.Fact], _ logger: Logger
    ) async throws -> BenchReport {
        let own = GuestImage.ownPath()
        let path = "\(own[..<(own.lastIndex(of: "/") ?? own.startIndex)]):\(variable("PATH") ?? "")"
        for program in ["containerd", "ctr", "nsenter", "containerd-shim-martlet-v2"] where !isInstalled(program, path)
        {
            throw BenchError("no \(program) in \(path) (Debian: apt install containerd)")
        }
        guard
            let plugins = plugins
                ?? ["/usr/lib/cni", "/opt/cni/bin"].first(where: { access("\($0)/bridge", X_OK) == 0 })
        else {
            throw BenchError("no CNI plugins in /usr/lib/cni or /opt/cni/bin (apt install containernetworking-plugins)")
        }
        let ofTemplates = [BenchTemplate.handler, BenchTemplate.poolHandler]
        let installed = Self.runtimes.filter { isInstalled($0.program, path) }.map(\.runtime)
            .filter { !ofTemplates.contains($0.handler) || driver.isBuiltIn }
        let selected = handlers.isEmpty ? installed.map(\.handler) : handlers
        if let other = selected.first(where: { handler in !installed.contains { $0.handler == handler } }) {
            let program = Self.runtimes.first { $0.runtime.handler == other }?.program
            let objection =
                ofTemplates.contains(other) && !driver.isBuiltIn
                ? "it needs the built-in VMM, but the driver is \(driver)" : program.map { "no \($0) in \(path)" }
            throw BenchError(
                "--handler \(other): \(objection ?? "an unknown runtime"); installed are "
                    + installed.map(\.handler).joined(separator: ", "))
        }
        let work = try BenchDirectory(in: directory)
        defer { work.remove() }
        try FileManager.default.createDirectory(atPath: "\(work.path)/image", withIntermediateDirectories: true)
        let archive = try BusyboxImage(directory: "\(work.path)/image").archive(busybox: busybox)
        let template = BenchTemplate(directory: work.path, configurationFile: global.config)
        let cold = try template.coldConfiguration()
        let environment = ["MARTLET_GUEST"].compactMap { name in variable(name).map { "\(name)=\($0)" } }
        let fromTemplate = try await template.sides(selected, logger: logger)
        var sides = selected.map { fromTemplate[$0] ?? PodBench.Side($0, handler: $0) }
        let containerd = try TemporaryContainerd(
            directory: work.path,
            runtimes: installed.filter { selected.contains($0.handler) },
            image: BusyboxImage.name, path: "\(path):\(work.path)",
            environment: environment + ["MARTLET_CONFIG=\(cold)"], plugins: plugins)
        defer { containerd.end() }
        if let number = selected.firstIndex(of: BenchTemplate.poolHandler) {
            sides[number].prepare = {
                try await onThread("pool") {
                    try containerd.run(own, template.fillArguments, environment: environment, within: .seconds(60))
                }
            }
        }
        defer {
            if selected.contains(BenchTemplate.poolHandler) {
                try? containerd.run(own, template.drainArguments, environment: [], within: .seconds(10))
            }
        }
        try containerd.importImage(archive, within: .seconds(60))
        return try await measure(
            PodBench(address: containerd.address, sides: sides, image: BusyboxImage.name), facts)
    }

    /// The runtimes that can be compared, and the program that each needs in PATH. Debian's package of runsc has no shim, and its
    /// containers do not start below runc's shim.
    private static let runtimes: [(program: String, runtime: TemporaryContainerd.Runtime)] = [
        ("containerd-shim-martlet-v2", .init(handler: "martlet", type: "io.containerd.martlet.v2")),
        ("containerd-shim-martlet-v2", martlet(BenchTemplate.handler)),
        ("containerd-shim-martlet-v2", martlet(BenchTemplate.poolHandler)),
        ("runc", .init(handler: "runc", type: "io.containerd.runc.v2")),
        ("containerd-shim-runsc-v1", .init(handler: "runsc", type: "io.containerd.runsc.v1")),
    ]

    private static func martlet(_ handler: String) -> TemporaryContainerd.Runtime {
        .init(handler: handler, type: BenchTemplate.runtimeType(handler))
    }

    private func isInstalled(_ program: String, _ path: String) -> Bool {
        RuntimeDiscovery.locate(program, path: path) != nil
    }
}

/// An environment variable.
func variable(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }
