import Glibc
import LinuxSystem
import Testing

/// A dockerd of a scene's own, in a network namespace, with Martlet as its runtime and an image of busybox.
final class Docker: CommandEngine {
    static let image = "busybox"
    /// containerd's namespace of docker's containers.
    private static let namespace = "moby"

    /// How dockerd runs containers.
    enum Runtime: String, CaseIterable, CustomTestStringConvertible {
        /// By the shim.
        case shim = "martlet"
        /// By the OCI command line, which containerd's shim of runc calls.
        case commandLine = "martlet-oci"

        /// Of a long test: both with `make test-all` only.
        static let some = Lab.everything ? allCases : [.shim]

        var testDescription: String { rawValue }
    }

    /// A version of docker.
    enum Release: String {
        /// docker 26.1, with a containerd of its own.
        case trixie
        /// docker 20.10, which knows no shims by name, with the machine's containerd.
        case bookworm
    }

    /// A release, and how it runs containers.
    struct Way: CustomTestStringConvertible {
        var runtime: Runtime
        var release = Release.trixie

        var testDescription: String { "\(runtime.rawValue), docker of \(release.rawValue)" }
    }

    /// All ways that there are here; without `make test-all` those of the usual release.
    static var ways: [Way] {
        let usual = Runtime.allCases.map { Way(runtime: $0) }
        guard Lab.everything else { return usual }
        do { _ = try engines(of: .bookworm) } catch {
            print("tests with docker 20.10 are skipped: \(error)")
            return usual
        }
        return usual + [Way(runtime: .commandLine, release: .bookworm)]
    }

    private let scene: Scene
    private let net: Net
    private let daemon: Daemon
    private let directory: String
    private let environment: [String]
    private let programs: String

    /// Where docker and what it needs is unpacked.
    private static func engines(of release: Release) throws -> String {
        try Command.run("\(Lab.repository)/scripts/engines.sh", [release.rawValue], within: .seconds(600)).trimmed
    }

    /// The same of the usual release, or why it can't be had. Fetched once.
    private static let engines: Result<String, LabError> = {
        do { return .success(try engines(of: .trixie)) } catch {
            print("tests with docker are skipped: \(error)")
            return .failure(LabError("\(error)"))
        }
    }()

    /// Why there is none; nil when there can be one.
    static var obstacle: String? {
        for program in ["runc", "iptables", "ip"] where Lab.program(program) == nil { return "no \(program) in PATH" }
        if case .failure(let error) = engines { return "\(error)" }
        return Containerd.obstacle
    }

    private init(_ scene: Scene, _ net: Net, settings: String, runtime: Runtime, release: Release) throws {
        (self.scene, self.net) = (scene, net)
        directory = try scene.makeDirectory("docker")
        programs = try scene.makeDirectory("docker/bin")
        let engines = try release == .trixie ? Self.engines.get() : Self.engines(of: release)
        for name in Leftovers.list(engines) { symlink("\(engines)/\(name)", "\(programs)/\(name)") }
        symlink("\(Lab.binaries)/containerd-shim-martlet-v2", "\(programs)/containerd-shim-martlet-v2")
        let file = try scene.configuration(settings + "\npaths.root = \"\(scene.directory)/pods\"\n")[1]
        environment =
            Lab.environment(programs: programs)
            + ["MARTLET_CONFIG=\(file)", "DOCKER_HOST=unix://\(directory)/docker.sock", "DOCKER_CONFIG=\(directory)"]
        var options = ["--config-file", "\(directory)/daemon.json", "--default-runtime", runtime.rawValue]
        let runtimes: String
        switch release {
        case .trixie:
            runtimes = """
                ,
                "runtimes": {
                  "martlet": {"runtimeType": "io.containerd.martlet.v2"},
                  "martlet-oci": {"path": "\(Lab.martlet)", "runtimeArgs": ["--config", "\(file)"]}
                }
                """
        case .bookworm:
            runtimes = ""
            let program = try scene.write(
                "docker/martlet", "#!/bin/sh\nexec \(Lab.martlet) --config \(file) \"$@\"\n")
            chmod(program, 0o755)
            options += ["--add-runtime", "\(Runtime.commandLine.rawValue)=\(program)"]
        }
        // Cgroups of the scene's own, which `Leftovers` knows.
        try scene.write(
            "docker/daemon.json",
            """
            {
              "data-root": "\(directory)/data", "exec-root": "\(directory)/exec", "pidfile": "\(directory)/pid",
              "hosts": ["unix://\(directory)/docker.sock"], "cgroup-parent": "/\(scene.token)docker",
              "exec-opts": ["native.cgroupdriver=cgroupfs"], "ip6tables": false\(runtimes)
            }
            """)
        daemon = Daemon(["\(programs)/dockerd"] + options, network: net.host, environment: environment)
    }

    /// Starts the daemon and waits until it answers.
    func start() throws {
        try daemon.start()
        let end = ContinuousClock.now + .seconds(30) * Lab.patience
        while try run("version").code != 0 {
            guard ContinuousClock.now < end else { throw LabError("dockerd does not answer: \(log)") }
            usleep(100_000)
        }
    }

    private func loadImage() throws {
        let archive = "\(directory)/image.tar"
        try Command.run("\(Lab.repository)/scripts/image.py", ["docker.io/library/busybox:latest", archive])
        try succeed("load", "-i", archive)
    }

    /// The daemon's process id.
    var pid: Int32? { daemon.pid }

    /// The process id of its containerd.
    var containerd: Int32? { Leftovers.read("\(directory)/exec/containerd/containerd.pid").flatMap { Int32($0) } }

    /// Kills the daemon; returns when its containerd has gone with it.
    func kill() throws {
        let containerd = containerd
        try daemon.kill()
        let end = ContinuousClock.now + .seconds(10) * Lab.patience
        while let containerd, Glibc.kill(containerd, 0) == 0, ContinuousClock.now < end {
            Leftovers.reapOrphans()
            usleep(50_000)
        }
    }

    /// What the daemon has logged, and the containerd and the shims below it.
    var log: String { daemon.log }

    /// `docker …`, under way.
    func begin(_ arguments: [String], input: String? = nil) throws -> Command {
        let command = try Command(
            "\(programs)/docker", arguments, input: input == nil ? .null : .pipe, environment: environment)
        if let input { command.input?.write(input) }
        return command
    }

    /// `docker …` at a terminal, under way; it leads a session there.
    func begin(_ arguments: [String], terminal: SharedDescriptor) throws -> Command {
        try Command(
            "setsid", ["-c", "-w", "\(programs)/docker"] + arguments, input: .descriptor(terminal),
            output: .descriptor(terminal), environment: environment)
    }

    /// A shell's output, in the network namespace of the daemon.
    func onHost(_ script: String) throws -> String { try net.start(net.host, script).finish().text }

    /// A shell's output on another computer of the network: its address is 10.99.0.9, the daemon's 10.99.0.1.
    func elsewhere(_ script: String) throws -> String {
        let other = try net.pod()
        try net.connect(other, number: 9)
        return try net.start(other, script).finish().text
    }

    /// `docker …`, to its end.
    func run(_ arguments: String...) throws -> Outcome { try run(arguments) }

    /// `docker …`, to its end.
    func run(_ arguments: [String]) throws -> Outcome { try begin(arguments).finish() }

    /// `docker …`, which must succeed; answers what it wrote.
    @discardableResult
    func succeed(_ arguments: String..., sourceLocation: SourceLocation = #_sourceLocation) throws -> String {
        let outcome = try begin(arguments).finish()
        try #require(
            outcome.code == 0, "docker \(arguments): \(outcome.errorText)\(log.suffix(2000))",
            sourceLocation: sourceLocation)
        return outcome.text
    }

    /// Where the shim and the command line keep the states of pods.
    var roots: [String] { ["\(scene.directory)/pods", "\(directory)/exec/runtime-runc/moby"] }

    /// What is left of pods when they have had five seconds to go.
    func settledLeftovers() -> [String] {
        let end = ContinuousClock.now + .seconds(5) * Lab.patience
        while !roots.flatMap(Leftovers.list).isEmpty, ContinuousClock.now < end { usleep(50_000) }
        return roots.flatMap(Leftovers.list)
    }

    /// Takes away what a body has left that failed half way; it may have killed the daemon.
    private func clear() {
        if (try? run("version").code) != 0 { try? start() }
        guard let ids = try? run("ps", "--all", "--quiet").lines, !ids.isEmpty else { return }
        _ = try? run(["rm", "--force"] + ids)
    }

    /// Plays a scene with a dockerd in it; at its end no pod may be left.
    static func play(
        settings: String = "", runtime: Docker.Runtime = .shim, release: Release = .trixie,
        _ body: (Docker, Scene) throws -> Void, sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        try Scene.play(
            { scene in
                let net = try Net(scene)
                defer { try? net.remove() }
                let docker = try Docker(scene, net, settings: settings, runtime: runtime, release: release)
                defer {
                    try? docker.daemon.stop()
                    // dockerd leaves the mount of the host's network namespace.
                    umount2("\(docker.directory)/exec/netns/default", Int32(MNT_DETACH))
                    // One that was killed leaves that of its storage on itself.
                    umount2("\(docker.directory)/data", Int32(MNT_DETACH))
                    HostGroup.remove("/\(scene.token)docker")
                }
                try docker.start()
                try docker.loadImage()
                do { try body(docker, scene) } catch {
                    docker.clear()
                    throw error
                }
                #expect(docker.settledLeftovers() == [], sourceLocation: sourceLocation)
            }, sourceLocation: sourceLocation)
    }
}
