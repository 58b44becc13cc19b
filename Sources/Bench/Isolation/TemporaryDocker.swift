import FoundationEssentials
import Glibc
import LinuxSystem

/// A dockerd for one bench, beside a containerd of the bench's own. It makes no networks. `end` ends it and removes what it leaves.
public final class TemporaryDocker: Sendable {
    /// Of its socket, as `docker --host` takes it.
    public var address: String { "unix://\(directory)/docker.sock" }

    /// The name of the image that `importImage` makes.
    static let image = "martlet-bench:latest"

    private let directory: String
    private let daemon: TemporaryDaemon

    /// Starts dockerd, and waits until it answers.
    ///
    /// - Parameters:
    ///   - directory: an empty directory for all of its files.
    ///   - runtimes: programs with the command line of an OCI runtime. Their names, for `docker run --runtime`, are those of the
    ///     files.
    ///   - containerd: the address of a containerd that is the bench's own.
    ///   - path: the PATH in which it finds programs.
    public init(directory: String, runtimes: [String], containerd: String, path: String) throws {
        self.directory = directory
        let programs = runtimes.map { "\"\(Self.name(ofRuntime: $0))\": {\"path\": \"\($0)\"}" }
        let settings = """
            {
              "hosts": ["unix://\(directory)/docker.sock"], "containerd": "\(containerd)",
              "data-root": "\(directory)/data", "exec-root": "\(directory)/exec", "pidfile": "\(directory)/pid",
              "storage-driver": "vfs", "exec-opts": ["native.cgroupdriver=cgroupfs"],
              "bridge": "none", "iptables": false, "ip-forward": false,
              "runtimes": {\(programs.joined(separator: ", "))}
            }
            """
        try Data(settings.utf8).write(to: URL(filePath: "\(directory)/daemon.json"))
        daemon = try TemporaryDaemon(
            "dockerd", ["--config-file", "\(directory)/daemon.json"],
            environment: ["PATH=\(path)", "HOME=\(directory)"], in: .make())
        do { try call(["version"], "answer") } catch {
            end()
            throw error
        }
    }

    /// The name by which `docker run --runtime` knows a runtime's program.
    static func name(ofRuntime program: String) -> String {
        String(program.split(separator: "/").last ?? "")
    }

    /// Makes `image` of a root file system.
    ///
    /// - Parameter archive: a tar archive.
    public func importImage(_ archive: String) throws { try call(["import", archive, Self.image], "import the image") }

    private func call(_ command: [String], _ what: String) throws {
        try daemon.retry(["docker", "--host", address] + command, what, within: .seconds(60))
    }

    /// Ends dockerd, and unmounts what it leaves.
    public func end() {
        daemon.end()
        try? MountEntry.detachAll(below: directory)
    }
}
