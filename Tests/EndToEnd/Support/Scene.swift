import Glibc
import LinuxSystem
import OCISpec
import Synchronization
import Testing

/// A directory of one test with its bundles and its state; at its end nothing of it may be left on the host.
final class Scene: Sendable {
    /// Its name is in each of the scene's ids, so what is left can be told from what others do meanwhile.
    let directory: String
    /// What `--root` gets.
    let root: String
    let token: String
    private let counter = Mutex(0)
    private static let scenes = Mutex(0)

    private init() throws {
        let number = Scene.scenes.withLock { count in
            count += 1
            return count
        }
        token = "e2e\(getpid())x\(number)"
        directory = "\(Lab.directory)/martlet-\(token)"
        root = "\(directory)/root"
        for path in [directory, root] where mkdir(path, 0o755) != 0 { throw LabError("mkdir \(path): errno \(errno)") }
    }

    /// Runs `body` in a scene of its own, then checks that it left nothing, and removes it.
    static func play(
        _ body: (Scene) throws -> Void, sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        if let obstacle = Lab.obstacle { throw LabError(obstacle) }
        let before = Leftovers.processes()
        let scene = try Scene()
        defer { scene.remove() }
        try body(scene)
        let left = Leftovers.settled(of: scene, before: before)
        #expect(left.isEmpty, "left behind:\n\(left.joined(separator: "\n"))", sourceLocation: sourceLocation)
    }

    private func remove() {
        // Pods that outlive their commands, of a test that failed half way.
        for id in Leftovers.list("\(root)/@containers") {
            _ = try? Command.run(Lab.martlet, ["--root", root, "delete", "--force", id], within: .seconds(60))
        }
        do { try Command.run("rm", ["-rf", "--one-file-system", directory], within: .seconds(120)) } catch {
            Issue.record("\(error)")
        }
    }

    /// A name that no other container has.
    func newID() -> String { "\(token)-\(nextNumber())" }

    private func nextNumber() -> Int {
        counter.withLock { count in
            count += 1
            return count
        }
    }

    /// Makes a directory and answers its path.
    func makeDirectory(_ name: String) throws -> String {
        let path = "\(directory)/\(name)"
        guard mkdir(path, 0o755) == 0 else { throw LabError("mkdir \(path): errno \(errno)") }
        return path
    }

    /// Writes a file and answers its path.
    @discardableResult
    func write(_ name: String, _ text: String) throws -> String { try write(name, bytes: Array(text.utf8)[...]) }

    /// Writes a file and answers its path.
    @discardableResult
    func write(_ name: String, bytes: ArraySlice<UInt8>) throws -> String {
        let path = name.hasPrefix("/") ? name : "\(directory)/\(name)"
        guard let file = fopen(path, "w") else { throw LabError("open \(path): errno \(errno)") }
        defer { fclose(file) }
        guard bytes.withUnsafeBytes({ fwrite($0.baseAddress, 1, $0.count, file) }) == bytes.count else {
            throw LabError("write \(path): errno \(errno)")
        }
        return path
    }

    /// A bundle of `rootfs` that runs `args`, without a terminal; `edit` changes what is written to config.json.
    func bundle(
        rootfs: Rootfs = .busybox, args: [String], edit: (inout Spec) -> Void = { _ in }
    ) throws -> String {
        let path = try makeDirectory("bundle-\(nextNumber())")
        var spec = Spec.standard()
        spec.process?.terminal = false
        spec.process?.args = args
        spec.root = Root(path: try rootfs.place(in: path))
        spec.linux?.resources = nil
        edit(&spec)
        try write("\(path)/config.json", String(decoding: JSON.encode(spec, indented: true), as: UTF8.self))
        return path
    }

    /// A bundle whose shell runs `script`.
    func bundle(
        rootfs: Rootfs = .busybox, script: String, edit: (inout Spec) -> Void = { _ in }
    ) throws -> String {
        try bundle(rootfs: rootfs, args: ["/bin/sh", "-c", script], edit: edit)
    }

    /// Makes a configuration of the driver under test in which `settings`, TOML, go before all else; answers the option
    /// that names it.
    func configuration(_ settings: String = "") throws -> [String] {
        let directory = try makeDirectory("configuration-\(nextNumber())")
        let driver = Lab.driver?.rawValue ?? ""
        let base = """
            hypervisor = "\(driver)"
            libvirt.uri = "\(Lab.libvirt)"
            agent.start_timeout_s = \(30 * Lab.patience)
            agent.request_timeout_s = \(30 * Lab.patience)
            agent.heartbeat_timeout_ms = \(4000 * Lab.patience)

            """
        let file = try write("\(directory)/martlet.toml", base)
        // A drop-in wins over the file beside it.
        guard mkdir("\(directory)/martlet.d", 0o755) == 0 else { throw LabError("mkdir \(directory): errno \(errno)") }
        try write("\(directory)/martlet.d/test.toml", settings)
        return ["--config", file]
    }

    /// What follows `martlet` on the command line: `--root … --config … run --bundle … ID`.
    func runArguments(
        bundle: String, id: String? = nil, global: [String] = [], options: [String] = []
    ) throws -> [String] {
        let configuration = global.contains("--config") ? [] : try configuration()
        return ["--root", root] + configuration + global + ["run", "--bundle", bundle] + options + [id ?? newID()]
    }

    /// `martlet … run …`, under way.
    func start(
        bundle: String, id: String? = nil, global: [String] = [], options: [String] = [],
        input: Command.Stream = .null, output: Command.Stream = .pipe, errors: Command.Stream = .pipe,
        environment: [String] = Lab.environment
    ) throws -> Command {
        try Command(
            Lab.martlet, runArguments(bundle: bundle, id: id, global: global, options: options),
            input: input, output: output, errors: errors, environment: environment)
    }

    /// Runs a container to its end.
    func run(
        bundle: String, id: String? = nil, global: [String] = [], options: [String] = [],
        within limit: Duration = .seconds(60)
    ) throws -> Outcome {
        try start(bundle: bundle, id: id, global: global, options: options).finish(within: limit)
    }
}
