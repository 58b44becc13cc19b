import FoundationEssentials
import Glibc
import LinuxSystem

/// The phases of one `martlet run` whose container ends at once.
struct RunPhases: Sendable {
    /// The ends of phases, in order: the name in the log, and the name in the report.
    private static let marks = [
        ("server", "server"), ("machine spawned", "VMM spawned"), ("first instruction", "first guest instruction"),
        // The built-in VMM reports the agent itself, QEMU's vsock device its driver.
        ("vsock started", "kernel, until its vsock driver is ready"),
        ("agent ready", "kernel, until the agent is ready"),
        ("agent connected", "agent connected"),
        ("container created", "container created"), ("container started", "container started"),
        ("container exited", "container exited"),
    ]

    /// The duration of each phase in order, milliseconds. The last phase ends with the command.
    var phases: [(name: String, milliseconds: Double)] = []
    var total: Double

    /// Runs the command.
    ///
    /// - Throws: `BenchError` when it fails or does not end within `timeout`.
    init(martlet: String, bundle: String, root: String, configuration: String?, timeout: Duration) throws {
        let log = "\(root)/phases.log"
        unlink(log)
        let id = "bench-\(getpid())"
        let (output, input) = try SharedDescriptor.pipe()
        let begin = monotonicNanoseconds()
        let child = try ChildProcess(
            "martlet",
            .init(
                executable: martlet,
                arguments: ["--debug", "--log", log, "--log-format", "json", "--root", root]
                    + (configuration.map { ["--config", $0] } ?? [])
                    + ["run", "--bundle", bundle, id],
                environment: Self.environment(), descriptors: [-1, -1, input.raw], diesWithParent: true))
        guard let end = child.waitForEnd(timeout: timeout) else {
            child.signal(SIGTERM)
            throw BenchError("martlet run did not end within \(timeout)")
        }
        let done = monotonicNanoseconds()
        withExtendedLifetime((output, input)) {}
        let text = String(decoding: try Data(contentsOf: URL(filePath: log)), as: UTF8.self)
        guard end == .exited(0) else { throw BenchError("martlet run \(end): \(text.suffix(1000))") }
        var times = PhaseTimes()
        for line in text.split(separator: "\n") { times.record(line: line) }
        var last = begin
        for (mark, name) in Self.marks {
            // Only the built-in VMM reports the guest's first instruction.
            guard let time = times.time(of: mark) else { continue }
            phases.append((name, Double(Int64(time) - Int64(last)) / 1e6))
            last = time
        }
        phases.append(("cleaned up, command ended", Double(Int64(done) - Int64(last)) / 1e6))
        total = Double(done - begin) / 1e6
    }

    static func environment() -> [String] {
        let names: [String] = ["PATH", "HOME", "MARTLET_GUEST"]
        return names.compactMap { name in getenv(name).map { "\(name)=\(String(cString: $0))" } }
    }
}
