import FoundationEssentials
import Glibc
import Hypervisor
import LinuxSystem

/// A containerd for one bench, with a network of its own. `end` ends it and removes what it leaves.
public final class TemporaryContainerd: Sendable {
    /// A runtime in its configuration.
    public struct Runtime: Sendable {
        public var handler: String
        /// `io.containerd.runc.v2`.
        public var type: String

        public init(handler: String, type: String) {
            self.handler = handler
            self.type = type
        }
    }

    /// The address of its CRI socket.
    public var address: String { "\(directory)/containerd.sock" }

    private let directory: String
    private let namespace: NetworkNamespace
    private let daemon: TemporaryDaemon

    /// Starts containerd. `importImage` waits until it is ready.
    ///
    /// - Parameters:
    ///   - directory: an empty directory for all of its files.
    ///   - path: the PATH in which it finds shims.
    ///   - environment: further environment variables for shims.
    ///   - plugins: the directory of the CNI plugins.
    public init(
        directory: String, runtimes: [Runtime], image: String, path: String, environment: [String], plugins: String
    ) throws {
        self.directory = directory
        namespace = try .make()
        try check("mkdir", "\(directory)/net.d", mkdir("\(directory)/net.d", 0o755))
        try Self.write(Self.network(directory), "\(directory)/net.d/10-bench.conflist")
        try Self.write(
            Self.configuration(directory, runtimes, image, plugins: plugins), "\(directory)/config.toml")
        daemon = try TemporaryDaemon(
            "containerd", ["--config", "\(directory)/config.toml"],
            environment: ["PATH=\(path)", "HOME=/root"] + environment, in: namespace)
    }

    /// Imports an image from an archive. Waits until containerd is ready.
    public func importImage(_ archive: String, within limit: Duration) throws {
        try retry(["-n", "k8s.io", "image", "import", archive], "import the image", within: limit)
    }

    /// Waits until containerd answers.
    public func waitUntilReady(within limit: Duration) throws {
        try retry(["version"], "answer", within: limit)
    }

    private func retry(_ command: [String], _ what: String, within limit: Duration) throws {
        try daemon.retry(["ctr", "-a", address] + command, what, within: limit)
    }

    /// Runs a program where containerd is: in its network.
    ///
    /// - Throws: `BenchError` when it fails, or does not end in time.
    public func run(_ program: String, _ arguments: [String], environment: [String], within limit: Duration) throws {
        let child = try ChildProcess(
            program,
            .init(
                executable: "/usr/bin/nsenter", arguments: ["--net=/proc/self/fd/3", program] + arguments,
                environment: RunPhases.environment() + environment,
                descriptors: [-1, -1, STDERR_FILENO, namespace.descriptor.raw], diesWithParent: true))
        guard let end = child.waitForEnd(timeout: limit) else {
            child.signal(SIGKILL)
            throw BenchError("\(program) \(arguments.joined(separator: " ")): did not end within \(limit)")
        }
        guard end == .exited(0) else {
            throw BenchError("\(program) \(arguments.joined(separator: " ")): \(end)")
        }
    }

    /// Ends containerd, and removes what pods may have left: processes with the directory on their command line, and mounts in it.
    public func end() {
        daemon.end()
        for pid in PodProcesses.naming("\(directory)/") { kill(pid, SIGKILL) }
        // The removal of the directory reports what stays.
        try? MountEntry.detachAll(below: directory)
    }

    private static func write(_ text: String, _ path: String) throws {
        try Data(text.utf8).write(to: URL(filePath: path))
    }

    /// The CNI configuration: a bridge in containerd's own network namespace.
    private static func network(_ directory: String) -> String {
        """
        {"cniVersion": "0.4.0", "name": "bench", "plugins": [{"type": "bridge", "bridge": "bench0", "isGateway": true,
         "ipam": {"type": "host-local", "dataDir": "\(directory)/addresses", "ranges": [[{"subnet": "10.98.0.0/16"}]]}}]}
        """
    }

    private static func configuration(
        _ directory: String, _ runtimes: [Runtime], _ image: String, plugins: String
    ) -> String {
        let cri = "plugins.\"io.containerd.grpc.v1.cri\""
        return """
            version = 2
            root = "\(directory)/root"
            state = "\(directory)/state"
            [grpc]
              address = "\(directory)/containerd.sock"
            [\(cri)]
              sandbox_image = "\(image)"
              stream_server_port = "0"
              restrict_oom_score_adj = true
              disable_apparmor = true
            [\(cri).cni]
              bin_dir = "\(plugins)"
              conf_dir = "\(directory)/net.d"
            [\(cri).containerd]
              default_runtime_name = "\(runtimes.first?.handler ?? "")"

            """
                + runtimes.map { section($0, "\(cri).containerd.runtimes.\($0.handler)", directory) }.joined()
    }

    private static func section(_ runtime: Runtime, _ name: String, _ directory: String) -> String {
        var lines = ["[\(name)]", "runtime_type = \"\(runtime.type)\""]
        // runc's state is removed with the directory.
        if runtime.handler == "runc" { lines += ["[\(name).options]", "Root = \"\(directory)/runc\""] }
        return lines.joined(separator: "\n") + "\n"
    }
}
