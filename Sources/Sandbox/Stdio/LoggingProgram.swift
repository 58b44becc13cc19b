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

    /// How long it may take to say that it is ready.
    private static let patience: Int32 = 10_000

    /// Starts it and waits until it is ready. It ends when its input does.
    init(_ command: Command, container: String, namespace: String) throws {
        let (output, outputEnd) = try SharedDescriptor.pipe()
        let (errors, errorsEnd) = try SharedDescriptor.pipe()
        let ready = try Self.launch(command, output, errors, container, namespace)
        var item = pollfd(fd: ready.raw, events: Int16(POLLIN), revents: 0)
        let count = try retrying("poll", command.path) { poll(&item, 1, Self.patience) }
        if count == 0 { throw SandboxError.failed("\(command.path) was not ready within \(Self.patience / 1000) s") }
        (stdout, stderr) = (outputEnd, errorsEnd)
    }

    /// Answers what ends when the program is ready: its copy of the other end is the only one then.
    private static func launch(
        _ command: Command, _ output: SharedDescriptor, _ errors: SharedDescriptor, _ container: String,
        _ namespace: String
    ) throws -> SharedDescriptor {
        let (ready, readyEnd) = try SharedDescriptor.pipe()
        _ = try ChildProcess(
            "logging program",
            .init(
                executable: command.path, arguments: command.arguments,
                environment: [
                    "CONTAINER_ID=\(container)", "CONTAINER_NAMESPACE=\(namespace)",
                    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                ],
                descriptors: [-1, -1, -1, output.raw, errors.raw, readyEnd.raw], newSession: true))
        return ready
    }
}
