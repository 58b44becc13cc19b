import CLinux
import Glibc
import LinuxSystem

/// The engine's ends of a process's streams. nil: the process has no such stream.
struct EngineStreams: Sendable {
    var stdin: SharedDescriptor?
    var stdout: SharedDescriptor?
    var stderr: SharedDescriptor?

    /// Opens what the Task service's `stdin`, `stdout` and `stderr` name: a fifo or file by path, or `fd:N`, a
    /// descriptor that this process inherited. Empty: none.
    init(stdin: String, stdout: String, stderr: String) throws {
        self.stdin = try EngineStreams.open(stdin, O_RDONLY)
        self.stdout = try EngineStreams.open(stdout, O_WRONLY)
        self.stderr = try EngineStreams.open(stderr, O_WRONLY)
    }

    private static func open(_ name: String, _ flags: Int32) throws -> SharedDescriptor? {
        if name.isEmpty { return nil }
        if name.hasPrefix("fd:"), let number = Int32(name.dropFirst(3)) {
            return SharedDescriptor(
                OwnedDescriptor(owning: try check("dup", name, martlet_fcntl_int(number, F_DUPFD_CLOEXEC, 0))))
        }
        return SharedDescriptor(try OwnedDescriptor.open(name, flags | O_NOCTTY))
    }
}

/// A process's streams under way: one vsock connection and one relay each.
final class ProcessStreams: Sendable {
    private let input: StreamRelay?
    private let outputs: [StreamRelay]

    init(input: StreamRelay?, outputs: [StreamRelay]) {
        self.input = input
        self.outputs = outputs
    }

    /// Suspends until all output is with the engine, then stops taking input.
    func finish() async {
        for output in outputs { await output.finish() }
        input?.cancel()
        await input?.finish()
    }

    /// Stops everything; output not taken yet is dropped.
    func cancel() {
        input?.cancel()
        for output in outputs { output.cancel() }
    }

    /// Ends the process's input, as if the engine had closed it.
    func closeInput() { input?.cancel() }
}
