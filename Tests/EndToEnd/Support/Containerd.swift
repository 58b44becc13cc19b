import Glibc
import LinuxSystem
import Testing

/// A containerd of a scene's own, with Martlet's shim and an image of busybox.
final class Containerd: CRIEngine {
    static let image = "docker.io/library/busybox:latest"

    private let scene: Scene
    let directory: String
    private let daemon: Daemon
    let environment: [String]
    /// containerd's own name space of containers.
    let namespace: String

    /// Why there is none; nil when there can be one.
    static var obstacle: String? {
        for program in ["containerd", "ctr", "python3"] where Lab.program(program) == nil {
            return "no \(program) in PATH"
        }
        let shim = "\(Lab.binaries)/containerd-shim-martlet-v2"
        return access(shim, X_OK) == 0 ? nil : "no \(shim) (make build)"
    }

    /// Starts it, and imports the image.
    ///
    /// - Parameters:
    ///   - network: the network namespace that it runs in; nil: the tests' own.
    ///   - plugins: of its configuration, TOML.
    init(
        _ scene: Scene, settings: String = "", guest: String = Lab.guest, namespace: String = "default",
        network: String? = nil, plugins: String = #"disabled_plugins = ["io.containerd.grpc.v1.cri"]"#
    ) throws {
        self.scene = scene
        self.namespace = namespace
        directory = try scene.makeDirectory("containerd")
        let file = try scene.configuration(settings + "\npaths.root = \"\(scene.directory)/pods\"\n")[1]
        let programs = try scene.makeDirectory("containerd/bin")
        symlink("\(Lab.binaries)/containerd-shim-martlet-v2", "\(programs)/containerd-shim-martlet-v2")
        environment =
            Lab.environment(guest: guest, programs: programs)
            + ["CONTAINERD_ADDRESS=\(directory)/containerd.sock", "MARTLET_CONFIG=\(file)"]
            + ["CONTAINERD_NAMESPACE=\(namespace)"]
        try scene.write(
            "containerd/config.toml",
            """
            version = 2
            root = "\(directory)/root"
            state = "\(directory)/state"
            \(plugins)
            [grpc]
              address = "\(directory)/containerd.sock"
            """)
        daemon = Daemon(
            ["containerd", "--config", "\(directory)/config.toml"], network: network, environment: environment)
        try start()
        try importImage(Self.image)
    }

    /// Makes an image of busybox and imports it.
    ///
    /// - Parameter command: what it runs; empty: a shell.
    func importImage(_ name: String, command: [String] = []) throws {
        let archive = "\(directory)/image.tar"
        try Command.run("\(Lab.repository)/scripts/image.py", [name, archive] + command)
        try succeed("image", "import", archive)
    }

    /// Where the shims keep the state of their pods.
    var pods: String { "\(scene.directory)/pods" }

    var socket: String { "\(directory)/containerd.sock" }

    var ownDirectories: [String] {
        ["netns", "sandboxes", "containers"].map { "\(directory)/state/io.containerd.grpc.v1.cri/\($0)" }
    }

    /// Where containerd keeps the bundles of tasks.
    var tasks: String { "\(directory)/state/io.containerd.runtime.v2.task" }

    /// Starts the daemon and waits until it answers.
    func start() throws {
        try daemon.start()
        let end = ContinuousClock.now + .seconds(20) * Lab.patience
        while try ctr("version").code != 0 {
            guard ContinuousClock.now < end else { throw LabError("containerd does not answer: \(log)") }
            usleep(50_000)
        }
    }

    /// Kills the daemon.
    func kill() throws { try daemon.kill() }

    /// What the daemon and the shims have logged since the last start.
    var log: String { daemon.log }

    /// `ctr …`, to its end.
    func ctr(_ arguments: String..., input: String? = nil) throws -> Outcome {
        try begin(arguments, input: input).finish()
    }

    /// `ctr …`, which must succeed; answers what it wrote.
    @discardableResult
    func succeed(_ arguments: String..., sourceLocation: SourceLocation = #_sourceLocation) throws -> String {
        let outcome = try begin(arguments).finish()
        try #require(
            outcome.code == 0, "ctr \(arguments): \(outcome.errorText)\(log.suffix(1000))",
            sourceLocation: sourceLocation)
        return outcome.text
    }

    /// `ctr …`, under way.
    func begin(_ arguments: [String], input: String? = nil) throws -> Command {
        let command = try Command("ctr", arguments, input: input == nil ? .null : .pipe, environment: environment)
        if let input { command.input?.write(input) }
        return command
    }

    /// `ctr …` at a person's terminal.
    func begin(_ arguments: [String], terminal: Pty) throws -> Command {
        let slave = Command.Stream.descriptor(terminal.slave)
        return try Command(
            "setsid", ["-c", "ctr"] + arguments, input: slave, output: slave, errors: slave, environment: environment)
    }

    /// The words of `ctr run` between `options` and the program's own.
    static func run(_ options: [String], _ id: String, _ program: [String]) -> [String] {
        ["run", "--runtime", "io.containerd.martlet.v2"] + options + [image, id] + program
    }

    /// As `run`, of a bundle's own config.json, whose root file system is the bundle's.
    static func run(_ options: [String], _ id: String, bundle: String) -> [String] {
        ["run", "--runtime", "io.containerd.martlet.v2", "--config", "\(bundle)/config.json"] + options + [id]
    }

    /// The daemon's process id.
    var pid: Int32? { daemon.pid }

    /// A task's state as `ctr task ls` has it: RUNNING, PAUSED, STOPPED; nil when there is no such task.
    func state(of id: String) throws -> String? {
        let line = try succeed("task", "ls").split(separator: "\n").first { $0.split(separator: " ").first == id[...] }
        return line.flatMap { $0.split(separator: " ").last }.map(String.init)
    }

    /// Waits until a task is in `state`.
    func wait(for state: String?, of id: String, within limit: Duration = .seconds(10)) throws {
        let end = ContinuousClock.now + limit * Lab.patience
        while try self.state(of: id) != state {
            guard ContinuousClock.now < end else {
                throw LabError(
                    "\(id) is \(try self.state(of: id) ?? "gone"), not \(state ?? "gone"): \(log.suffix(1000))")
            }
            usleep(100_000)
        }
    }

    /// Plays a scene with a containerd in it; at its end no pod may be left.
    static func play(
        settings: String = "", guest: String = Lab.guest, _ body: (Containerd, Scene) throws -> Void,
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        try Scene.play(
            { scene in
                let containerd = try Containerd(scene, settings: settings, guest: guest)
                defer { try? containerd.kill() }
                try body(containerd, scene)
                #expect(containerd.settledLeftovers() == [], sourceLocation: sourceLocation)
            }, sourceLocation: sourceLocation)
    }
}
