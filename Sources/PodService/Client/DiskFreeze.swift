import FoundationEssentials
import Glibc
import LinuxSystem
import Sandbox

/// `martlet pod freeze`: a command of the host's that runs while the file systems on a pod's disks stand still, such as one that takes
/// a snapshot of a volume.
public struct DiskFreeze: Sendable {
    /// The pod's id, or the beginning of one that no other pod's id has.
    public var pod: String
    /// A program, by a path or a name that is searched in `PATH`, and its arguments.
    public var command: [String]
    /// After so many seconds the file systems go on, also when this process dies.
    public var seconds: Int

    public init(pod: String, command: [String], seconds: Int) {
        (self.pod, self.command, self.seconds) = (pod, command, seconds)
    }

    /// Freezes, runs the command, and thaws.
    ///
    /// - Returns: the command's exit code; 128 + n when signal n ended it.
    /// - Throws: where nothing was frozen or the command was not run; and where the time was over before the command had ended.
    public func run(_ runtime: Runtime) async throws -> Int32 {
        try runtime.requireRoot(for: "pod freeze")
        guard let name = command.first, let program = name.contains("/") ? name : ExternalProgram.find(name) else {
            throw SandboxError.invalid("\(command.first ?? "command"): no such program")
        }
        return try await asking {
            let inspection = try await PodInspection(pod: pod, root: runtime.root)
            let signals = try SignalQueue(ForwardedSignals.all)
            try await inspection.freezeDisks(seconds: seconds)
            let code: Int32
            do { code = try await execute(program, signals) } catch {
                _ = try? await inspection.thawDisks()
                throw error
            }
            guard try await inspection.thawDisks() else {
                throw SandboxError.failed(
                    "the disks of pod \(pod) went on after \(seconds) s, before the command had ended (--timeout)")
            }
            return code
        }
    }

    private func execute(_ program: String, _ signals: SignalQueue) async throws -> Int32 {
        let child = try ChildProcess(
            "command",
            .init(
                executable: program, argv0: command[0], arguments: Array(command.dropFirst()),
                environment: ProcessInfo.processInfo.environment.map { "\($0)=\($1)" },
                descriptors: [STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO]))
        let forwarding = Task { await signals.pass(to: child) {} }
        defer { forwarding.cancel() }
        return await child.end().status
    }
}
