import ArgumentParser
import Bench
import FoundationEssentials
import Glibc
import Hypervisor
import LinuxSystem
import Sandbox

struct BenchPod: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pod",
        abstract: "Compare the start and the memory of Kubernetes pods with those of other runtimes.",
        discussion: """
            Asks one containerd by its CRI for a pod with a container, by one runtime after the other in turns: RunPodSandbox, CreateContainer, \
            StartContainer, then the memory of all of the pod's processes on the host, then its end. Without --address it \
            starts a containerd of its own, in a network namespace of its own, with an image of busybox, Martlet's shim beside this program, runc, and \
            runsc where its containerd-shim-runsc-v1 is installed. Needs root; without --address also containerd and the CNI plugins.
            """)

    @OptionGroup var global: GlobalOptions
    @OptionGroup var bench: BenchOptions

    @Option(help: "The CRI socket of a containerd that runs; its configuration must have the runtimes and a network.")
    var address: String?

    @Option(
        name: .customLong("handler"),
        help:
            "A runtime, by its name in the engine's configuration; again for more. The first is compared with the others."
    )
    var handlers: [String] = []

    @Option(help: "With --address: an image that the engine has, with sleep in it.")
    var image: String?

    @Option(help: "What the own image is made of.")
    var busybox = "/bin/busybox"

    @Option(help: "Where the own containerd keeps its files; a file system that overlayfs takes.")
    var directory = "/var/tmp"

    @Option(help: "The directory of the CNI plugins.")
    var plugins: String?

    func validate() throws {
        if address != nil, image == nil { throw ValidationError("--address wants an --image that the engine has") }
    }

    func run() async throws {
        let report = try await global.reporting { _ in
            let plan = HostFacts.of(try Configuration.load(file: global.config))
            let facts: [BenchReport.Fact] = [
                .init("host", hostDescription()),
                .init("martlet", "\(try plan.chooseDriver("auto", accelerator: "auto"))"),
            ]
            guard let address else { return try await inOwnContainerd(facts) }
            return try await measure(
                PodBench(
                    address: address, handlers: handlers.isEmpty ? ["martlet", "runc"] : handlers, image: image ?? ""),
                facts)
        }
        try await global.reporting { _ in try bench.show(report) }
    }

    private func measure(_ pods: PodBench, _ facts: [BenchReport.Fact]) async throws -> BenchReport {
        try await pods.run(
            rounds: bench.runs, command: CommandLine.arguments.joined(separator: " "), facts: facts,
            progress: BenchOptions.progress)
    }

    private func inOwnContainerd(_ facts: [BenchReport.Fact]) async throws -> BenchReport {
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
        let known = Self.runtimes.filter { isInstalled($0.program, path) }.map(\.runtime)
        let wanted = handlers.isEmpty ? known.map(\.handler) : handlers
        if let other = wanted.first(where: { handler in !known.contains { $0.handler == handler } }) {
            let program = Self.runtimes.first { $0.runtime.handler == other }?.program
            throw BenchError(
                "--handler \(other): \(program.map { "no \($0) in \(path)" } ?? "an unknown runtime"); installed are "
                    + known.map(\.handler).joined(separator: ", "))
        }
        let work = try BenchDirectory(in: directory)
        defer { work.remove() }
        try FileManager.default.createDirectory(atPath: "\(work.path)/image", withIntermediateDirectories: true)
        let archive = try BusyboxImage(directory: "\(work.path)/image").archive(busybox: busybox)
        let containerd = try OwnContainerd(
            directory: work.path,
            runtimes: known.filter { wanted.contains($0.handler) },
            image: BusyboxImage.name, path: path,
            environment: ["MARTLET_GUEST"].compactMap { name in variable(name).map { "\(name)=\($0)" } }
                + (global.config.map { ["MARTLET_CONFIG=\($0)"] } ?? []),
            plugins: plugins)
        defer { containerd.end() }
        try containerd.importImage(archive, within: .seconds(60))
        return try await measure(
            PodBench(address: containerd.address, handlers: wanted, image: BusyboxImage.name), facts)
    }

    /// The runtimes that can be compared, and the program that each must have in PATH. Debian's runsc has no shim; below
    /// runc's the container of a pod does not start.
    private static let runtimes: [(program: String, runtime: OwnContainerd.Runtime)] = [
        ("containerd-shim-martlet-v2", .init(handler: "martlet", type: "io.containerd.martlet.v2")),
        ("runc", .init(handler: "runc", type: "io.containerd.runc.v2")),
        ("containerd-shim-runsc-v1", .init(handler: "runsc", type: "io.containerd.runsc.v1")),
    ]

    private func variable(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }

    private func isInstalled(_ program: String, _ path: String) -> Bool {
        path.split(separator: ":").contains { access("\($0)/\(program)", X_OK) == 0 }
    }
}
