import Glibc
import LinuxSystem
import Testing

/// podman with directories of a scene's own, Martlet's command line as its runtime, and an image of busybox.
final class Podman: CommandEngine {
    static let image = "docker.io/library/busybox"

    enum Release: String {
        /// podman 4.3: the machine's.
        case bookworm
        /// podman 5.4, with a conmon of its own.
        case trixie
    }

    /// All releases that there are here.
    static var releases: [Release] {
        do { _ = try newPrograms() } catch {
            print("tests with podman 5.4 are skipped: \(error)")
            return [.bookworm]
        }
        return [.bookworm, .trixie]
    }

    /// Where the programs of trixie are.
    private static func newPrograms() throws -> String {
        try Command.run("\(Lab.repository)/scripts/podman5.sh", [], within: .seconds(600)).trimmed
    }

    private let scene: Scene
    private let net: Net?
    private let program: [String]
    private let options: [String]
    private let environment: [String]
    /// Where Martlet keeps the states of pods.
    let states: String

    /// Why there is none; nil when there can be one.
    static var obstacle: String? {
        for program in ["podman", "conmon"] where Lab.program(program) == nil { return "no \(program) in PATH" }
        if access("/etc/containers/policy.json", R_OK) != 0 { return "no /etc/containers/policy.json" }
        return Lab.obstacle
    }

    private init(_ scene: Scene, settings: String, release: Release, net: Net?) throws {
        self.scene = scene
        self.net = net
        let entry = net.map { ["nsenter", "--net=\(Net.path($0.host))"] } ?? []
        var programs = ""
        switch release {
        case .bookworm: program = entry + ["podman"]
        case .trixie:
            let directory = try Self.newPrograms()
            program = entry + ["\(directory)/podman"]
            programs = "conmon_path = [\"\(directory)/conmon\"]\nhelper_binaries_dir = [\"\(directory)\"]"
        }
        let directory = try scene.makeDirectory("podman")
        let runtime = "\(directory)/martlet"
        let file = try scene.configuration(settings)[1]
        states = "\(scene.directory)/root"
        // podman gives its runtime no --root, and passes its own environment on as far as it likes.
        try scene.write(
            runtime,
            """
            #!/bin/sh
            export MARTLET_GUEST=\(Lab.guest)
            exec \(Lab.martlet) --config \(file) --root \(states) "$@"

            """)
        chmod(runtime, 0o755)
        let configuration = try scene.write(
            "podman/containers.conf",
            """
            [containers]
            default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
            cgroupns = "host"
            [engine]
            cgroup_manager = "cgroupfs"
            events_logger = "file"
            infra_image = "localhost/pause:latest"
            \(programs)
            [network]
            firewall_driver = "iptables"
            network_config_dir = "\(directory)/networks"
            """)
        options = [
            "--root", "\(directory)/storage", "--runroot", "\(directory)/run", "--tmpdir", "\(directory)/tmp",
            "--storage-driver", "vfs", "--runtime", runtime,
        ]
        environment =
            Lab.environment
            + ["CONTAINERS_CONF=\(configuration)", "HOME=\(directory)", "PODMAN_IGNORE_CGROUPSV1_WARNING=1"]
    }

    /// `podman …`, under way.
    func begin(_ arguments: [String], input: String? = nil) throws -> Command {
        let command = try Command(
            program[0], program.dropFirst() + options + arguments, input: input == nil ? .null : .pipe,
            environment: environment)
        if let input { command.input?.write(input) }
        return command
    }

    /// `podman …`, to its end.
    func run(_ arguments: String...) throws -> Outcome { try begin(arguments).finish() }

    /// `podman …`, which must succeed; answers what it wrote.
    @discardableResult
    func succeed(_ arguments: String..., sourceLocation: SourceLocation = #_sourceLocation) throws -> String {
        let outcome = try begin(arguments).finish()
        try #require(outcome.code == 0, "podman \(arguments): \(outcome.errorText)", sourceLocation: sourceLocation)
        return outcome.text
    }

    /// A shell's output, in podman's network namespace.
    func onHost(_ script: String) throws -> String {
        try #require(net).start(#require(net).host, script).finish().text
    }

    /// The ids of the pods that run, each a virtual machine.
    var machines: [String] { Leftovers.list(states).filter { !$0.hasPrefix("@") && $0 != "lock" }.sorted() }

    var roots: [String] { [states] }

    /// Without conmon podman asks for no deletion: the pod's server finds that the bundle is gone.
    func settledLeftovers() -> [String] {
        let end = ContinuousClock.now + .seconds(10) * Lab.patience
        while !machines.isEmpty, ContinuousClock.now < end { usleep(50_000) }
        return machines
    }

    /// Plays a scene with podman in it; at its end no pod may be left.
    ///
    /// - Parameter hasNetwork: whether podman is in a network namespace of its own, where it can make networks.
    static func play(
        settings: String = "", release: Release = .bookworm, hasNetwork: Bool = false,
        _ body: (Podman, Scene) throws -> Void, sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        try Scene.play(
            { scene in
                let net = hasNetwork ? try Net(scene) : nil
                defer { try? net?.remove() }
                let podman = try Podman(scene, settings: settings, release: release, net: net)
                let archive = "\(scene.directory)/image.tar"
                try Command.run("\(Lab.repository)/scripts/image.py", ["docker.io/library/busybox:latest", archive])
                try podman.succeed("load", "-i", archive)
                defer {
                    _ = try? podman.run("pod", "rm", "-f", "-a", "-t", "0")
                    _ = try? podman.run("rm", "-f", "-a", "-t", "0")
                }
                try body(podman, scene)
                #expect(podman.settledLeftovers() == [], sourceLocation: sourceLocation)
            }, sourceLocation: sourceLocation)
    }
}
