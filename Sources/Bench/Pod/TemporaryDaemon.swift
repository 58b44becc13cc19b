import Glibc
import Hypervisor
import LinuxSystem

/// The daemon of an engine, which lives as long as one bench, in a network namespace.
struct TemporaryDaemon: Sendable {
    private let name: String
    private let process: ChildProcess
    private let output: Console

    /// Starts it.
    ///
    /// - Parameters:
    ///   - program: found in the PATH of `environment`.
    ///   - environment: all variables (NAME=VALUE) that it gets.
    init(_ program: String, _ arguments: [String], environment: [String], in namespace: NetworkNamespace) throws {
        name = program
        let source: SharedDescriptor
        (process, source) = try ChildProcess.withPipe(
            program,
            .init(
                executable: "/usr/bin/nsenter", arguments: ["--net=/proc/self/fd/3", program] + arguments,
                environment: environment,
                descriptors: [-1, ChildProcess.pipe, ChildProcess.pipe, namespace.descriptor.raw],
                diesWithParent: true))
        output = try Console(program, source: source) { _ in }
    }

    /// Calls a client until it succeeds.
    ///
    /// - Parameters:
    ///   - client: its program, found in PATH, and arguments.
    ///   - what: what the daemon does then.
    /// - Throws: `BenchError` with the daemon's last lines, where it has ended or the client does not succeed in time.
    func retry(_ client: [String], _ what: String, within limit: Duration) throws {
        let end = ContinuousClock.now + limit
        while true {
            let call = try ChildProcess(
                client[0],
                .init(
                    executable: "/usr/bin/env", arguments: client, environment: RunPhases.environment(),
                    descriptors: [-1, -1, -1], diesWithParent: true))
            if call.waitForEnd(timeout: limit) == .exited(0) { return }
            call.signal(SIGKILL)
            guard process.ended == nil, ContinuousClock.now < end else {
                throw BenchError("\(name) does not \(what): \(output.tail(10).joined(separator: " | "))")
            }
            usleep(100_000)
        }
    }

    /// Ends it: SIGTERM, and SIGKILL after ten seconds.
    func end() {
        process.signal(SIGTERM)
        if process.waitForEnd(timeout: .seconds(10)) == nil {
            process.signal(SIGKILL)
            _ = process.waitForEnd(timeout: .seconds(5))
        }
    }
}
