import FoundationEssentials
import Glibc
import LinuxSystem

/// Measures the memory of a pod's processes while another pod idles, so that memory that pods share counts as shared.
enum IdlePods {
    static func memory(
        martlet: String, bundle: String, root: String, configuration: String?, timeout: Duration
    ) throws -> [ProcessMemory] {
        var commands: [ChildProcess] = []
        defer {
            for command in commands { command.signal(SIGTERM) }
            for command in commands { _ = command.waitForEnd(timeout: .seconds(20)) }
        }
        var states: [State] = []
        for number in 1...2 {
            let id = "bench-\(getpid())-\(number)"
            let (command, output) = try ChildProcess.withPipe(
                "martlet",
                .init(
                    executable: martlet,
                    arguments: ["--root", root] + (configuration.map { ["--config", $0] } ?? [])
                        + ["run", "--bundle", bundle, id],
                    environment: RunPhases.environment(), descriptors: [-1, ChildProcess.pipe, -1],
                    diesWithParent: true))
            commands.append(command)
            try wait(for: output, timeout)
            states.append(try State(path: "\(root)/\(id)/state.json"))
        }
        return try states[0].processes.map { try ProcessMemory(process: $0.name, pid: $0.pid) }
    }

    /// Waits until the container has written something.
    private static func wait(for output: SharedDescriptor, _ timeout: Duration) throws {
        var item = pollfd(fd: output.raw, events: Int16(POLLIN), revents: 0)
        guard poll(&item, 1, Int32(clamping: timeout.components.seconds * 1000)) > 0,
            item.revents & Int16(POLLIN) != 0
        else { throw BenchError("the container printed nothing within \(timeout)") }
    }

    private struct State: Decodable {
        struct Process: Decodable {
            var name: String
            var pid: Int32
        }
        var processes: [Process]

        init(path: String) throws {
            self = try JSONDecoder().decode(State.self, from: try Data(contentsOf: URL(filePath: path)))
        }
    }
}
