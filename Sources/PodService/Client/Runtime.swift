import Glibc
import LinuxSystem
import Sandbox

/// What the commands of an OCI runtime have in common: where states are, and what the pods' servers are told.
public struct Runtime: Sendable {
    /// The directory of the states of pods and containers.
    public var root: String
    public var configurationFile: String?
    /// As it was loaded from there; nil: by a command that starts no server.
    public var configuration: Configuration?
    /// Where the pods' servers log.
    public var output: LogOutput

    public init(
        root: String, configurationFile: String? = nil, configuration: Configuration? = nil, output: LogOutput
    ) {
        self.root = root
        self.configurationFile = configurationFile
        self.configuration = configuration
        self.output = output
    }

    var records: ContainerRecords { ContainerRecords(root: root) }

    /// A server has deadlines of its own, each shorter than this.
    static let requestTimeout: Duration = .seconds(600)

    func requireRoot(for command: String) throws {
        guard geteuid() == 0 else {
            throw SandboxError.invalid("martlet \(command) must be run as root (user id 0, not \(geteuid()))")
        }
    }
}

/// Writes a process id, beside and renamed: who waits for the file never reads half of it.
func writePID(_ pid: Int32, to path: String) throws {
    try replaceFile(path, by: path + ".new", with: Array("\(pid)".utf8), mode: 0o644)
}
