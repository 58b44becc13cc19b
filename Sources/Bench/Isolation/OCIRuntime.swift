import Glibc
import LinuxSystem
import Synchronization

/// A program with the command line of an OCI runtime, and how it is called.
public struct OCIRuntime: Sendable, Equatable, Codable {
    /// As the report names it: `runc`, `runsc (ptrace)`, `martlet (qemu)`.
    public var name: String
    /// Absolute path.
    public var program: String
    /// What comes before the command.
    public var options: [String]
    /// What it says of its version; empty where that is not known.
    public var version = ""
    /// The containerd shim that starts its containers; nil: runc's shim, which calls `program`.
    public var shim: Shim?
    /// What emulates the processor, so that the figures are the emulator's; nil: nothing does.
    public var emulator: String?

    /// A containerd shim, and the environment variables (NAME=VALUE) that it gets.
    public struct Shim: Sendable, Equatable, Codable {
        public var program: String
        public var environment: [String]

        public init(program: String, environment: [String]) {
            self.program = program
            self.environment = environment
        }
    }

    public init(_ name: String, program: String, options: [String] = [], emulator: String? = nil) {
        self.name = name
        self.program = program
        self.options = options
        self.emulator = emulator
    }
}

extension OCIRuntime {
    /// This runtime with the version that it says of itself; where it says none, without.
    public func withVersion() -> OCIRuntime {
        let lines = Mutex<[String]>([])
        var copy = self
        guard
            let process = try? RuntimeProcess(
                self, ["--version"], line: { line, _ in lines.withLock { $0.append(line) } }),
            (try? process.waitForSuccess(.seconds(10))) != nil
        else { return copy }
        copy.version = printable(lines.withLock { $0.first } ?? "", limit: 200)
        return copy
    }
}

/// Finds the OCI runtimes of this host.
public enum RuntimeDiscovery {
    /// The names of programs, and for each of its ways to run containers a name and options.
    private static let known: [(program: String, ways: [(name: String, options: [String])])] = [
        ("runc", [("runc", [])]),
        ("crun", [("crun", [])]),
        ("youki", [("youki", [])]),
        // The containers have no interface but the loopback; without this, runsc looks for others to take over.
        ("runsc", ["systrap", "kvm", "ptrace"].map { ("runsc (\($0))", ["--platform=\($0)", "--network=none"]) }),
        ("kata-runtime", [("kata-runtime", [])]),
        ("krun", [("krun", [])]),
    ]

    /// Those that make machines on KVM. Where it does not work, runsc hangs.
    private static let needKVM = ["runsc (kvm)", "krun"]

    /// The runtimes whose programs are in a search path, in a fixed order. Whether they run containers here is not tried.
    ///
    /// - Parameters:
    ///   - path: directories, as in PATH.
    ///   - kvmObjection: why KVM runs no machines here; nil where it does.
    /// - Returns: the runtimes, and those that can't be tried.
    public static func find(
        path: String, kvmObjection: String?
    ) -> (runtimes: [OCIRuntime], missing: [IsolationReport.Missing]) {
        let all = known.flatMap { program, ways in
            guard let found = locate(program, path: path) else { return [OCIRuntime]() }
            return ways.map { OCIRuntime($0.name, program: found, options: $0.options) }
        }
        guard let kvmObjection else { return (all, []) }
        return (
            all.filter { !needKVM.contains($0.name) },
            all.filter { needKVM.contains($0.name) }.map { .init($0.name, "it needs KVM, but \(kvmObjection)") }
        )
    }

    /// A runtime by its path.
    ///
    /// - Parameter text: `NAME=PATH`.
    /// - Throws: `BenchError` where it is not that, or the file can't be executed.
    public static func named(_ text: String) throws -> OCIRuntime {
        let parts = text.split(separator: "=", maxSplits: 1).map(String.init)
        guard parts.count == 2, !parts[0].isEmpty else { throw BenchError("--runtime \(text): not NAME=PATH") }
        guard isProgram(parts[1]), let path = realpath(parts[1], nil) else {
            throw BenchError("--runtime \(text): \(parts[1]) is not an executable file")
        }
        defer { free(path) }
        // Links stay what they are: some programs behave as the name says that they are called by.
        return OCIRuntime(parts[0], program: parts[1].hasPrefix("/") ? parts[1] : String(cString: path))
    }

    /// A program of a search path.
    public static func locate(_ name: String, path: String) -> String? {
        path.split(separator: ":").filter { $0.hasPrefix("/") }.map { "\($0)/\(name)" }.first(where: isProgram)
    }

    private static func isProgram(_ path: String) -> Bool {
        var facts = stat()
        return stat(path, &facts) == 0 && facts.st_mode & S_IFMT == S_IFREG && access(path, X_OK) == 0
    }
}
