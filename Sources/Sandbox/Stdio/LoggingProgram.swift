import Glibc
import LinuxSystem

/// A program that takes a container's output: the `binary://` of containerd's shims.
///
/// It gets stdout as descriptor 3, stderr as 4, and closes 5 when it is ready (containerd, docs and
/// pkg/process/io.go).
struct LoggingProgram: Sendable {
    struct Command: Equatable, Sendable {
        var path: String
        var arguments: [String]

        /// `/PATH?KEY=VALUE&…`: each key and value is an argument.
        init(_ text: String, _ field: String) throws {
            let parts = text.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
            guard let path = parts.first?.removingPercentEncoding, path.hasPrefix("/") else {
                throw SandboxError.invalid("\(field): binary://\(text): not an absolute path")
            }
            self.path = path
            arguments = parts.dropFirst().joined().split(separator: "&").flatMap { pair in
                pair.split(separator: "=", maxSplits: 1).map {
                    String($0).replacing("+", with: " ").removingPercentEncoding ?? ""
                }
            }
        }
    }

    let stdout: SharedDescriptor
    let stderr: SharedDescriptor

    /// Starts the program and waits until it is ready. It ends when its input does.
    ///
    /// - Parameters:
    ///   - container: its id.
    ///   - namespace: the engine's namespace of containers.
    ///   - timeout: how long the program may take to be ready.
    /// - Throws: `SandboxError.failed` when it is not ready in time; it has been killed then, with what it has started.
    init(_ command: Command, container: String, namespace: String, timeout: Duration = .seconds(10)) throws {
        let (output, outputEnd) = try SharedDescriptor.pipe()
        let (errors, errorsEnd) = try SharedDescriptor.pipe()
        // Ends when the program closes its copy of the other end, which is the only one then.
        let (child, ready) = try ChildProcess.withPipe(
            "logging program",
            .init(
                executable: command.path, arguments: command.arguments,
                environment: [
                    "CONTAINER_ID=\(container)", "CONTAINER_NAMESPACE=\(namespace)",
                    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                ],
                descriptors: [-1, -1, -1, output.raw, errors.raw, ChildProcess.pipe], newSession: true))
        var item = pollfd(fd: ready.raw, events: Int16(POLLIN), revents: 0)
        let count = try retrying("poll", command.path) { poll(&item, 1, Int32(timeout / .milliseconds(1))) }
        if count == 0 {
            child.signalGroup(SIGKILL)
            throw SandboxError.failed("logging program \(command.path): was not ready within \(timeout)")
        }
        (stdout, stderr) = (outputEnd, errorsEnd)
    }
}
