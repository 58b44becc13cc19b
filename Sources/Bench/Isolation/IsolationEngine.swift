import FoundationEssentials
import Glibc
import LinuxSystem

/// An engine that starts containers by OCI runtimes: the commands of its command line.
protocol IsolationEngine: Sendable {
    /// The turn in which it is asked. The measures' keys begin with its name.
    var turn: IsolationMeasure.Turn { get }
    /// Its command line.
    var program: OCIRuntime { get }

    /// Runs a container in the foreground, and removes it when it ends.
    ///
    /// - Parameters:
    ///   - runtime: the programs that `IsolationEngineRuntime` has made.
    ///   - rootfs: the directory of its root file system.
    func run(_ id: String, by runtime: IsolationEngineRuntime, rootfs: String, _ command: [String]) -> [String]
    func exec(_ id: String, by runtime: IsolationEngineRuntime, _ command: [String]) -> [String]
    func kill(_ id: String, by runtime: IsolationEngineRuntime) -> [String]
    /// What removes a container whose `run` has failed, in this order.
    func remove(_ id: String, by runtime: IsolationEngineRuntime) -> [[String]]
}

/// A runtime as engines call it: by the path of a program alone, so its options are in scripts.
public struct IsolationEngineRuntime: Sendable {
    /// A script with the command line of an OCI runtime.
    let program: String
    /// A script that is a containerd shim; nil: runc's shim, which calls `program`.
    let shim: String?

    /// The path of `program` of the runtime with a number.
    ///
    /// - Parameter directory: that of all scripts.
    public static func program(of side: Int, in directory: String) -> String { "\(directory)/engine-\(side)-runtime" }

    /// Writes the scripts.
    ///
    /// - Parameters:
    ///   - side: the runtime's number.
    ///   - directory: that of all scripts, and of the runtime's state for engines that name none.
    init(_ runtime: OCIRuntime, side: Int, in directory: String) throws {
        program = Self.program(of: side, in: directory)
        try Self.write(
            [runtime.program] + runtime.options + ["--root", "\(directory)/engine-\(side)-state"], program)
        guard let own = runtime.shim else {
            shim = nil
            return
        }
        let shim = "\(directory)/engine-\(side)-shim"
        try Self.write(["/usr/bin/env"] + own.environment + [own.program], shim)
        self.shim = shim
    }

    private static func write(_ command: [String], _ path: String) throws {
        let words = command.map { "'" + $0.replacing("'", with: "'\\''") + "'" }
        let text = "#!/bin/sh\nexec \(words.joined(separator: " ")) \"$@\"\n"
        try text.write(toFile: path, atomically: false, encoding: .utf8)
        try check("chmod", path, chmod(path, 0o755))
    }
}

/// podman, with storage of its own.
struct PodmanEngine: IsolationEngine {
    let turn = IsolationMeasure.Turn.podman
    let program: OCIRuntime
    /// Holds all of its files.
    let directory: String

    private func options(_ runtime: IsolationEngineRuntime) -> [String] {
        [
            "--root", "\(directory)/storage", "--runroot", "\(directory)/run", "--tmpdir", "\(directory)/tmp",
            "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime",
            runtime.program,
        ]
    }

    func run(_ id: String, by runtime: IsolationEngineRuntime, rootfs: String, _ command: [String]) -> [String] {
        // Its own limits are above what it may set where it runs in a container itself.
        options(runtime) + [
            "run", "--rm", "--name", id, "--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit",
            "nproc=4096:4096", "--rootfs", rootfs,
        ] + command
    }

    func exec(_ id: String, by runtime: IsolationEngineRuntime, _ command: [String]) -> [String] {
        options(runtime) + ["exec", id] + command
    }

    func kill(_ id: String, by runtime: IsolationEngineRuntime) -> [String] { options(runtime) + ["kill", id] }

    func remove(_ id: String, by runtime: IsolationEngineRuntime) -> [[String]] {
        [options(runtime) + ["rm", "--force", "--time", "0", id]]
    }
}

/// A containerd of the bench's own, by `ctr`.
struct ContainerdEngine: IsolationEngine {
    let turn = IsolationMeasure.Turn.containerd
    let program: OCIRuntime
    /// Of its socket.
    let address: String

    private var options: [String] { ["--address", address, "--namespace", "bench"] }

    func run(_ id: String, by runtime: IsolationEngineRuntime, rootfs: String, _ command: [String]) -> [String] {
        let shim =
            runtime.shim.map { ["--runtime", $0] }
            ?? ["--runtime", "io.containerd.runc.v2", "--runc-binary", runtime.program]
        return options + ["run", "--rm"] + shim + ["--rootfs", rootfs, id] + command
    }

    func exec(_ id: String, by runtime: IsolationEngineRuntime, _ command: [String]) -> [String] {
        options + ["task", "exec", "--exec-id", "exec", id] + command
    }

    func kill(_ id: String, by runtime: IsolationEngineRuntime) -> [String] {
        options + ["task", "kill", "--signal", "SIGKILL", id]
    }

    func remove(_ id: String, by runtime: IsolationEngineRuntime) -> [[String]] {
        [kill(id, by: runtime), options + ["task", "delete", "--force", id], options + ["container", "delete", id]]
    }
}

/// A dockerd of the bench's own. It calls each runtime by runc's shim.
struct DockerEngine: IsolationEngine {
    let turn = IsolationMeasure.Turn.docker
    let program: OCIRuntime
    /// Of its socket.
    let address: String

    private var options: [String] { ["--host", address] }

    func run(_ id: String, by runtime: IsolationEngineRuntime, rootfs: String, _ command: [String]) -> [String] {
        let name = TemporaryDocker.name(ofRuntime: runtime.program)
        return options + ["run", "--rm", "--name", id, "--network", "none", "--runtime", name, TemporaryDocker.image]
            + command
    }

    func exec(_ id: String, by runtime: IsolationEngineRuntime, _ command: [String]) -> [String] {
        options + ["exec", id] + command
    }

    func kill(_ id: String, by runtime: IsolationEngineRuntime) -> [String] { options + ["kill", id] }

    func remove(_ id: String, by runtime: IsolationEngineRuntime) -> [[String]] { [options + ["rm", "--force", id]] }
}
