import FoundationEssentials
import Glibc
import LinuxSystem

/// What pods that idle at the same time take of the host, so that memory that they share counts as shared.
public struct IdlePods: Sendable, Codable {
    public var pods: Int
    /// From the first command until every container has written something, milliseconds.
    public var startTime: Double
    /// Why pods did not start.
    public var failures: [String]
    /// Means of a pod, KiB: what its host processes alone have, and with a share of what they share, without guest memory.
    public var privateKiB: Int
    public var proportionalKiB: Int
    /// Means of a pod, KiB: the guest's memory that it alone has, and what it has together with others.
    public var guestOwnKiB: Int
    public var guestSharedKiB: Int

    private enum CodingKeys: String, CodingKey {
        case pods, failures
        case startTime = "start_ms"
        case privateKiB = "private_kib"
        case proportionalKiB = "proportional_kib"
        case guestOwnKiB = "guest_own_kib"
        case guestSharedKiB = "guest_shared_kib"
    }

    /// Starts `count` pods at once, as the configuration says, and ends them.
    static func measure(
        _ count: Int, martlet: String, bundle: String, root: String, configuration: String?, timeout: Duration
    ) throws -> (pods: IdlePods, first: [ProcessMemory]) {
        let begin = monotonicNanoseconds()
        var commands: [IdlePod] = []
        defer {
            for command in commands { command.child.signal(SIGTERM) }
            for command in commands { _ = command.child.waitForEnd(timeout: .seconds(60)) }
        }
        for number in 1...count {
            commands.append(
                try IdlePod(number, martlet: martlet, bundle: bundle, root: root, configuration: configuration))
        }
        var failures: [String] = []
        var running: [[ProcessMemory]] = []
        for command in commands {
            do { try command.waitForOutput(timeout) } catch { failures.append("\(error)") }
        }
        let startTime = Double(monotonicNanoseconds() - begin) / 1e6
        for command in commands {
            if let memory = try? command.memory() { running.append(memory) }
        }
        guard let first = running.first else { throw BenchError("no pod started: \(failures.first ?? "")") }
        let totals = running.map(\.total)
        func mean(_ value: (ProcessMemory) -> Int) -> Int { totals.map(value).reduce(0, +) / totals.count }
        let pods = IdlePods(
            pods: count, startTime: startTime, failures: failures, privateKiB: mean(\.privateKiB),
            proportionalKiB: mean(\.proportionalKiB), guestOwnKiB: mean(\.guestOwnKiB),
            guestSharedKiB: mean { $0.guestKiB - $0.guestOwnKiB })
        return (pods, first)
    }
}

/// A `martlet run` whose container idles after it has written something.
private struct IdlePod {
    let child: ChildProcess
    private let output: SharedDescriptor
    private let state: String

    init(_ number: Int, martlet: String, bundle: String, root: String, configuration: String?) throws {
        let id = "bench-\(getpid())-\(number)"
        state = "\(root)/\(id)/state.json"
        (child, output) = try ChildProcess.withPipe(
            "martlet",
            .init(
                executable: martlet,
                arguments: ["--root", root] + (configuration.map { ["--config", $0] } ?? [])
                    + ["run", "--bundle", bundle, id],
                environment: RunPhases.environment(), descriptors: [-1, ChildProcess.pipe, -1], diesWithParent: true))
    }

    func waitForOutput(_ timeout: Duration) throws {
        var item = pollfd(fd: output.raw, events: Int16(POLLIN), revents: 0)
        guard poll(&item, 1, Int32(clamping: timeout.components.seconds * 1000)) > 0,
            item.revents & Int16(POLLIN) != 0
        else { throw BenchError("the container printed nothing within \(timeout)") }
    }

    /// Of the pod's processes.
    func memory() throws -> [ProcessMemory] {
        let state = try JSONDecoder().decode(State.self, from: try Data(contentsOf: URL(filePath: state)))
        return try state.processes.map { try ProcessMemory(process: $0.name, pid: $0.pid) }
    }

    private struct State: Decodable {
        struct Process: Decodable {
            var name: String
            var pid: Int32
        }
        var processes: [Process]
    }
}
