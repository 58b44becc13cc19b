import FoundationEssentials
import Glibc
import LinuxSystem

/// A `martlet run` whose container serves until it is ended.
final class ServingPod: Sendable {
    private let command: ChildProcess
    private let output: SharedDescriptor
    private let errors: SharedDescriptor
    private let martlet: String
    /// Of each command.
    private let options: [String]
    let id: String
    private let root: String

    /// What the pod's server writes down of it.
    struct State: Decodable {
        struct Process: Decodable {
            var name: String
            var pid: Int32
        }
        var processes: [Process]
        /// Directories.
        var cgroups: [String]
    }

    /// - Parameter configuration: the path of the configuration file; nil: the standard one.
    init(martlet: String, id: String, bundle: String, configuration: String?, root: String) throws {
        self.martlet = martlet
        self.id = id
        self.root = root
        let options = (configuration.map { ["--config", $0] } ?? []) + ["--root", root]
        self.options = options
        let (errors, errorInput) = try SharedDescriptor.pipe()
        self.errors = errors
        (command, output) = try ChildProcess.withPipe(
            "martlet",
            .init(
                executable: martlet,
                arguments: options + ["run", "--bundle", bundle, id],
                environment: RunPhases.environment(), descriptors: [-1, ChildProcess.pipe, errorInput.raw],
                diesWithParent: true))
        withExtendedLifetime(errorInput) {}
    }

    func state() throws -> State {
        try JSONDecoder().decode(State.self, from: try Data(contentsOf: URL(filePath: "\(root)/\(id)/state.json")))
    }

    /// Starts another command of `martlet`, without output.
    func start(_ arguments: [String]) throws -> ChildProcess {
        try ChildProcess(
            "martlet",
            .init(
                executable: martlet, arguments: options + arguments, environment: RunPhases.environment(),
                descriptors: [-1, -1, 2], diesWithParent: true))
    }

    /// Waits until the container has written something.
    func waitForMessage(_ limit: Duration) throws {
        var item = pollfd(fd: output.raw, events: Int16(POLLIN), revents: 0)
        let milliseconds = Int32(clamping: limit.components.seconds * 1000)
        if poll(&item, 1, milliseconds) > 0, item.revents & Int16(POLLIN) != 0 { return }
        var buffer = [UInt8](repeating: 0, count: 2000)
        command.signal(SIGKILL)
        let count = max(0, read(errors.raw, &buffer, buffer.count))
        throw BenchError("the container printed nothing: \(String(decoding: buffer.prefix(count), as: UTF8.self))")
    }

    /// From now on reads what the container and its server write, and throws it away. To be called once.
    func discardOutput() throws {
        for stream in [output, errors] {
            try startThread("discard") {
                var buffer = [UInt8](repeating: 0, count: 64 << 10)
                while read(stream.raw, &buffer, buffer.count) > 0 {}
            }
        }
    }

    /// Ends the pod, and waits until all of it is gone.
    func end() {
        let kill = try? start(["kill", id, "KILL"])
        _ = kill?.waitForEnd(timeout: .seconds(20))
        if command.waitForEnd(timeout: .seconds(20)) == nil {
            command.signal(SIGKILL)
            _ = command.waitForEnd(timeout: .seconds(5))
        }
    }
}
