import ArgumentParser
import Bench
import FoundationEssentials
import Glibc
import Hypervisor
import LinuxSystem
import Logging
import OCISpec
import Sandbox

struct BenchIsolation: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "isolation",
        abstract: "Measure what containers cost with each OCI runtime of this machine, Martlet among them.",
        discussion: """
            Finds runc, crun, youki, runsc, kata-runtime and krun in PATH, and runs containers with each of them and with \
            Martlet's hypervisors in turns: starts, exec, memory, system calls, computing, files and TCP. Prints medians with 95 % \
            intervals, and what they cost compared with runc. Where podman and containerd are installed, it starts containers \
            through them too. Measures until all intervals are within ±5 %, or the time is \
            over. Needs root and a static busybox.
            """)

    @OptionGroup var global: GlobalOptions

    @Option(help: "Seconds that the rounds may take; 600 when not given, with --quick 120.")
    var seconds: Int?

    @Flag(help: "Take 120 seconds, and leave out the memory of ten containers and the latency beside a busy one.")
    var quick = false

    @Flag(help: "Leave out the starts through podman and containerd.")
    var bare = false

    @Flag(help: "Leave out redis and PostgreSQL, which are measured where they are installed; as --quick does.")
    var noApplications = false

    @Flag(help: "Also measure the memory of fifty containers at once.")
    var fifty = false

    @Flag(
        help:
            "Also start containers until 80 % of the host's memory is used, at most 1000. Other programs may lack memory then."
    )
    var density = false

    @Option(name: .customLong("runtime"), help: "Another runtime by its path: NAME=PATH; may be repeated.")
    var runtimes: [String] = []

    @Option(help: "Only the runtime of this name; may be repeated.")
    var only: [String] = []

    @Option(help: "Also write all that was measured to this file, as JSON.")
    var json: String?

    @Option(help: "Also write a page with charts to this file.")
    var html: String?

    @Option(help: "Print what has changed since this report, a file that --json has written.")
    var compare: String?

    @Option(help: "A static busybox for the containers.")
    var busybox = "/bin/busybox"

    @Option(
        help:
            "The program that works in the containers, martlet-bench-guest; the one that belongs to this program when not given."
    )
    var load: String?

    @Option(help: "Where the containers' files are.")
    var directory = "/var/tmp"

    func validate() throws {
        if let seconds, !(1...86400).contains(seconds) { throw ValidationError("--seconds must be 1 to 86400") }
    }

    func run() async throws {
        let (report, changes) = try await global.reporting { logger in
            // What can be refused is refused before minutes are spent.
            let old = try compare.map { try IsolationReport.read($0) }
            if geteuid() != 0 { throw BenchError("bench isolation needs root") }
            for file in [json, html].compactMap({ $0 }) { try Self.checkWritable(file) }
            try BenchDirectory.checkBusybox(busybox)
            let load = try Self.locateLoad(load)
            let work = try BenchDirectory(in: directory)
            defer { work.remove() }
            let martlet = await IsolationMartlet(directory: work.path, configurationFile: global.config).sides(
                wanted: { only.isEmpty || only.contains($0) }, logger: logger)
            let path = variable("PATH") ?? "/usr/sbin:/usr/bin:/sbin:/bin"
            let kvmObjection = HostFacts.of(try Configuration.load(file: global.config)).kvmObjection
            let others = RuntimeDiscovery.find(path: path, kvmObjection: kvmObjection)
            let missing = others.missing + martlet.missing
            let selected = try Self.select(
                others.runtimes + martlet.runtimes + (try runtimes.map(RuntimeDiscovery.named)), only: only,
                missing: missing)
            var bench = IsolationBench(
                runtimes: selected.map { $0.withVersion() },
                missing: missing.filter { only.isEmpty || only.contains($0.name) }, directory: work.path)
            bench.seconds = seconds ?? (quick ? 120 : 600)
            bench.isQuick = quick
            bench.hasFifty = fifty
            bench.hasDensity = density
            bench.kvmObjection = kvmObjection
            let applications = quick || noApplications ? nil : IsolationApplications(path: path)
            bench.hasRedis = applications?.redis != nil
            bench.hasPostgres = applications?.postgres != nil
            bench.missing += applications?.missing ?? []
            let bundles = IsolationBundleMaker(
                work: work, busybox: busybox, load: load, loadMilliseconds: quick ? 60 : 150,
                applications: applications.map { .init(work: work, applications: $0) })
            let engines = try bare ? nil : IsolationEngines(for: bench, path: path)
            defer { engines?.end() }
            try engines?.join(&bench, image: bundles.archive)
            let report = try await onThread("bench") { [bench, path = work.path] in
                try bench.run(
                    command: CommandLine.arguments.joined(separator: " "),
                    facts: [.init("host", hostDescription()), .init("files", Self.fileSystem(path))],
                    bundles: bundles.make, progress: BenchOptions.progress)
            }
            if let json { try report.json().write(toFile: json, atomically: true, encoding: .utf8) }
            let changes = old.map { report.changes(since: $0) } ?? []
            if let html { try report.page(changes: changes).write(toFile: html, atomically: true, encoding: .utf8) }
            return (report, changes)
        }
        print(report.table())
        if compare != nil { print("\nsince the earlier run:\n" + changes.joined(separator: "\n")) }
    }

    /// The runtimes that are wanted.
    private static func select(
        _ found: [OCIRuntime], only: [String], missing: [IsolationReport.Missing]
    ) throws -> [OCIRuntime] {
        let names = found.map(\.name)
        for name in Set(names) where names.count(where: { $0 == name }) > 1 {
            throw BenchError("--runtime \(name): there is a runtime of that name already")
        }
        if let name = only.first(where: { name in !names.contains(name) && !missing.contains { $0.name == name } }) {
            throw BenchError("--only \(name): no such runtime here; there are \(names.joined(separator: ", "))")
        }
        return only.isEmpty ? found : found.filter { only.contains($0.name) }
    }

    private static func checkWritable(_ file: String) throws {
        let directory = file.contains("/") ? String(file[..<(file.lastIndex(of: "/") ?? file.startIndex)]) + "/" : "."
        if access(directory, W_OK) != 0 {
            throw BenchError("\(file): \(directory): \(String(cString: strerror(errno)))")
        }
    }

    /// The program that is given, or the one of this installation or source tree.
    private static func locateLoad(_ file: String?) throws -> String {
        let name = "martlet-bench-guest"
        if let file {
            if access(file, X_OK) == 0 { return file }
            throw BenchError("--load \(file): not an executable file")
        }
        if let installed = try? Programs.own(name) { return installed }
        var above = GuestImage.ownPath()
        while let slash = above.lastIndex(of: "/"), slash > above.startIndex {
            above = String(above[..<slash])
            let built = "\(above)/guest-agent/.build/release/\(name)"
            if access(built, X_OK) == 0 { return built }
        }
        throw BenchError("no \(name) beside this program: build it with `make agent`, or name it with --load")
    }

    /// The type of the file system of a directory.
    private static func fileSystem(_ path: String) -> String {
        let mounts = (try? MountEntry.all()) ?? []
        let mount = mounts.filter { $0.mountPoint == "/" || path.hasPrefix($0.mountPoint + "/") }
            .max { $0.mountPoint.count < $1.mountPoint.count }
        return path + (mount.map { " (\($0.type))" } ?? "")
    }
}

/// Martlet's own sides of `martlet bench isolation`.
struct IsolationMartlet {
    /// Takes configurations and the template.
    let directory: String
    /// What the bench was given; nil: the standard file.
    let configurationFile: String?

    /// - Parameters:
    ///   - wanted: whether a side of a name is.
    /// - Returns: a runtime for each hypervisor that works here, and why others do not.
    func sides(
        wanted: (String) -> Bool, logger: Logger
    ) async -> (runtimes: [OCIRuntime], missing: [IsolationReport.Missing]) {
        var runtimes: [OCIRuntime] = []
        var missing: [IsolationReport.Missing] = []
        for (name, driver, usesTemplate) in [
            ("martlet (kvm)", "kvm", false), ("martlet (kvm, template)", "kvm", true),
            ("martlet (qemu)", "qemu", false),
        ] where wanted(name) {
            do {
                runtimes.append(try await side(name, driver, usesTemplate, number: runtimes.count, logger))
            } catch { missing.append(.init(name, "\(error)")) }
        }
        return (runtimes, missing)
    }

    private func side(
        _ name: String, _ driver: String, _ usesTemplate: Bool, number: Int, _ logger: Logger
    ) async throws -> OCIRuntime {
        let template = BenchTemplate(
            directory: "\(directory)/martlet-\(number)", configurationFile: configurationFile)
        let (used, choice) = try await template.configuration(of: driver, usesTemplate: usesTemplate, logger)
        var emulator: String?
        if case .qemu(.tcg, _, _, _) = choice { emulator = "QEMU without KVM (TCG)" }
        var runtime = OCIRuntime(
            name, program: GuestImage.ownPath(), options: ["--config", used], emulator: emulator)
        runtime.shim = .init(
            program: try Programs.own("containerd-shim-martlet-v2"),
            environment: ["MARTLET_CONFIG=\(used)"] + (variable("MARTLET_GUEST").map { ["MARTLET_GUEST=\($0)"] } ?? []))
        return runtime
    }
}

/// Makes the bundles of `martlet bench isolation`, the same for each runtime.
struct IsolationBundleMaker: Sendable {
    let work: BenchDirectory
    let busybox: String
    let load: String
    let loadMilliseconds: Int
    /// Programs of the host; nil: none are measured.
    let applications: IsolationApplicationBundles?

    /// The root file system of `serving` as a tar archive, for engines that want an image.
    func archive() throws -> String {
        let bundle = try make(0).serving
        let archive = "\(work.path)/image.tar"
        try HostCommand.run("tar", "-C", "\(bundle)/rootfs", "-cf", archive, ".")
        return archive
    }

    /// - Parameter side: the runtime's number.
    func make(_ side: Int) throws -> IsolationBundles {
        let ids = IsolationBundles.pairIDs(of: side)
        let serving = ["sh", "-c", "echo up; exec sleep 86400"]
        return IsolationBundles(
            serving: try bundle("\(side)-serving", serving), nothing: try bundle("\(side)-nothing", ["true"]),
            pair: (
                try bundle("\(side)-first", serving, pod: ids.0, kind: "sandbox"),
                try bundle("\(side)-second", serving, pod: ids.0, kind: "container")
            ),
            load: try bundle(
                "\(side)-load",
                [
                    "/bin/load", "load", "time=\(loadMilliseconds)", "root=/work", "bind=/bind",
                ], share: "\(work.path)/bind-\(side)"),
            echo: try bundle("\(side)-echo", ["cat"]),
            noise: try bundle("\(side)-noise", ["sh", "-c", Self.noise]),
            redis: try applications?.redis(side), postgres: try applications?.postgres(side))
    }

    /// A loop for each CPU, and one that writes and removes a file.
    private static let noise = """
        echo up
        for cpu in $(seq $(nproc)); do (while :; do :; done) & done
        while :; do dd if=/dev/zero of=/noise bs=1M count=64 2>/dev/null; rm /noise; done
        """

    /// - Parameters:
    ///   - pod: the id of the container that stands for the pod.
    ///   - share: a directory that the container has as /bind, with the work's program; nil: neither.
    private func bundle(
        _ name: String, _ arguments: [String], pod: String? = nil, kind: String = "", share: String? = nil
    ) throws -> String {
        let files = FileManager.default
        if let share { try files.createDirectory(atPath: share, withIntermediateDirectories: true) }
        return try work.bundle(name, arguments) { spec in
            // The first that all runtimes know; crun 1.8 takes no 1.2.
            spec.ociVersion = "1.0.2"
            spec.root?.readonly = false
            if let pod {
                spec.annotations["io.kubernetes.cri.sandbox-id"] = pod
                spec.annotations["io.kubernetes.cri.container-type"] = kind
            }
            if let share {
                spec.mounts.append(Mount(destination: "/bind", type: "bind", source: share, options: ["rbind", "rw"]))
            }
        } fill: { rootfs in
            let names = ["sh", "true", "echo", "sleep", "cat", "seq", "nproc", "dd", "rm"]
            try BenchDirectory.install(busybox, as: names, in: rootfs)
            guard share != nil else { return }
            for directory in ["work", "bind"] {
                try files.createDirectory(atPath: "\(rootfs)/\(directory)", withIntermediateDirectories: false)
            }
            try files.copyItem(atPath: load, toPath: "\(rootfs)/bin/load")
        }
    }
}
