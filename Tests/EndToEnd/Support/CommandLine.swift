import FoundationEssentials
import Glibc
import LinuxSystem
import OCISpec
import Testing

/// `martlet` as an engine uses it: a container that outlives the commands which ask for it.
struct CommandLineContainer {
    let scene: Scene
    let id: String
    private let global: [String]

    /// - Parameter settings: TOML.
    init(_ scene: Scene, id: String? = nil, settings: String = "") throws {
        self.scene = scene
        self.id = id ?? scene.newID()
        global = try ["--root", scene.root] + scene.configuration(settings)
    }

    /// Another container of the same scene and configuration.
    init(like other: CommandLineContainer) {
        (scene, id, global) = (other.scene, other.scene.newID(), other.global)
    }

    var pidFile: String { "\(scene.directory)/\(id).pid" }
    var output: String { "\(scene.directory)/\(id).out" }

    /// A command with its arguments, under way.
    func begin(
        _ arguments: [String], input: Command.Stream = .null, output: Command.Stream = .pipe,
        errors: Command.Stream = .pipe
    ) throws -> Command {
        try Command(
            Lab.martlet, global + arguments, input: input, output: output, errors: errors, environment: Lab.environment)
    }

    func run(_ arguments: String...) throws -> Outcome { try begin(arguments).finish() }

    /// A command that must succeed; answers what it printed.
    @discardableResult
    func succeed(_ arguments: String..., sourceLocation: SourceLocation = #_sourceLocation) throws -> String {
        let outcome = try begin(arguments).finish()
        try #require(outcome.code == 0, "\(arguments): \(outcome.errorText)", sourceLocation: sourceLocation)
        return outcome.text
    }

    /// `create`: the container writes into the file `output`.
    ///
    /// - Returns: the id of the container's process on the host.
    @discardableResult
    func create(bundle: String) throws -> Int32 {
        let file = try SharedDescriptor(
            OwnedDescriptor.open(output, O_WRONLY | O_CREAT | O_APPEND, mode: 0o644))
        let outcome = try begin(
            ["create", "--bundle", bundle, "--pid-file", pidFile, id], output: .descriptor(file),
            errors: .descriptor(file)
        ).finish()
        try #require(outcome.code == 0, "\(text)")
        return try #require(Int32(try readText(pidFile)))
    }

    /// What the container has written.
    var text: String { Leftovers.read(output) ?? "" }

    /// `state`; nil when there is no such container.
    func state() throws -> (status: String, pid: Int)? {
        let outcome = try run("state", id)
        guard outcome.code == 0 else { return nil }
        struct State: Decodable {
            var status: String
            var pid: Int
        }
        let state = try JSONDecoder().decode(State.self, from: Data(outcome.text.utf8))
        return (state.status, state.pid)
    }

    /// Waits until the container has this status.
    func wait(for status: String, sourceLocation: SourceLocation = #_sourceLocation) throws {
        let end = ContinuousClock.now + .seconds(20) * Lab.patience
        while try state()?.status != status {
            guard ContinuousClock.now < end else {
                return #expect(try state()?.status == status, "\(text)", sourceLocation: sourceLocation)
            }
            usleep(20_000)
        }
    }

    /// Waits until the container has written something.
    func wait(forText wanted: String, sourceLocation: SourceLocation = #_sourceLocation) {
        let end = ContinuousClock.now + .seconds(20) * Lab.patience
        while !text.contains(wanted), ContinuousClock.now < end { usleep(10_000) }
        #expect(text.contains(wanted), sourceLocation: sourceLocation)
    }
}
