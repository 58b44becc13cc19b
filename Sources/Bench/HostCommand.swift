import Glibc
import Hypervisor
import LinuxSystem

/// Programs of the host that prepare a bench.
public enum HostCommand {
    /// Runs a program to its end.
    ///
    /// - Parameter program: found in PATH.
    /// - Returns: the last hundred lines that it has written.
    /// - Throws: `BenchError` with its last lines, where it fails or does not end in time.
    @discardableResult
    public static func run(
        _ program: String, _ arguments: String..., within limit: Duration = .seconds(60)
    ) throws -> [String] {
        let (child, output) = try ChildProcess.withPipe(
            program,
            .init(
                executable: "/usr/bin/env", arguments: [program] + arguments, environment: RunPhases.environment(),
                descriptors: [-1, ChildProcess.pipe, ChildProcess.pipe], diesWithParent: true))
        let lines = try Console(program, source: output) { _ in }
        let end = child.waitForEnd(timeout: limit)
        child.signal(SIGKILL)
        lines.waitForEnd(timeout: .seconds(5))
        guard end == .exited(0) else {
            throw BenchError("\(program) \(end.map { "\($0)" } ?? "did not end"): \(lines.tail(5))")
        }
        return lines.tail(100)
    }
}
