import Glibc
import LinuxSystem

/// A `martlet run` whose container serves until it is ended.
final class NetPod: Sendable {
    private let command: ChildProcess
    private let output: SharedDescriptor
    private let errors: SharedDescriptor

    init(martlet: String, id: String, bundle: String, configuration: String, root: String) throws {
        let (errors, errorInput) = try SharedDescriptor.pipe()
        self.errors = errors
        (command, output) = try ChildProcess.withPipe(
            "martlet",
            .init(
                executable: martlet,
                arguments: ["--config", configuration, "--root", root, "run", "--bundle", bundle, id],
                environment: RunPhases.environment(), descriptors: [-1, ChildProcess.pipe, errorInput.raw],
                diesWithParent: true))
        withExtendedLifetime(errorInput) {}
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

    /// Ends the pod, and waits until all of it is gone.
    func end() {
        command.signal(SIGTERM)
        if command.waitForEnd(timeout: .seconds(20)) == nil {
            command.signal(SIGKILL)
            _ = command.waitForEnd(timeout: .seconds(5))
        }
    }
}
