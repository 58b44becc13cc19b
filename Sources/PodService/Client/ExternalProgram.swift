import Glibc
import LinuxSystem
import Sandbox

/// A program of the host that a command needs.
struct ExternalProgram: Sendable {
    let name: String
    /// Absolute.
    private let path: String

    /// Finds it in PATH.
    ///
    /// - Parameter package: Debian's, for the message.
    /// - Throws: `SandboxError.unsupported` where it is not installed.
    init(_ name: String, package: String, for purpose: String) throws(SandboxError) {
        guard let path = Self.find(name) else {
            throw .unsupported("\(purpose) without \(name), which is not installed (Debian: apt install \(package))")
        }
        (self.name, self.path) = (name, path)
    }

    /// The path of a program that is searched in PATH.
    static func find(_ name: String) -> String? {
        let directories = getenv("PATH").map { String(cString: $0) } ?? "/usr/sbin:/usr/bin:/sbin:/bin"
        return directories.split(separator: ":").map { "\($0)/\(name)" }.first { access($0, X_OK) == 0 }
    }

    /// Runs it to its end.
    ///
    /// - Throws: `SandboxError.failed` with what it wrote to standard error.
    func run(_ arguments: [String], within limit: Duration = .seconds(600)) throws {
        let variables = ["PATH", "HOME", "TMPDIR", "XDG_RUNTIME_DIR", "REGISTRY_AUTH_FILE", "https_proxy", "no_proxy"]
        let (child, errors) = try ChildProcess.withPipe(
            name,
            .init(
                executable: path, arguments: arguments,
                environment: variables.compactMap { name in getenv(name).map { "\(name)=\(String(cString: $0))" } },
                descriptors: [-1, -1, ChildProcess.pipe], diesWithParent: true))
        let text = try readText(errors.raw, name)
        guard let end = child.waitForEnd(timeout: limit) else {
            child.signal(SIGKILL)
            throw SandboxError.failed("\(name): did not end within \(limit)")
        }
        guard end == .exited(0) else {
            throw SandboxError.failed(
                "\(name) \(end): \(text.split(separator: "\n").suffix(3).joined(separator: "; "))")
        }
    }
}
