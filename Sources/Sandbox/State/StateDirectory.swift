import CLinux
import FoundationEssentials
import Glibc
import LinuxSystem
import PodNetwork

/// What is on disk of one pod: `ROOT/ID/`, with a lock that its server holds as long as it lives.
///
/// `state.json` names the processes, so that whoever comes after a crash can end exactly those, and the socket at which
/// the server listens.
package struct StateDirectory: Sendable {
    /// A process of the pod; the start time tells it from a later one with the same number.
    package struct ProcessRecord: Codable, Sendable, Equatable {
        var name: String
        package var pid: Int32
        /// Clock ticks after boot: field 22 of /proc/PID/stat, proc(5).
        var startTime: UInt64
    }

    /// A network namespace that is not the pod's own and outlives it.
    package struct NetworkRecord: Codable, Sendable, Equatable {
        var path: String
        /// `NetworkNamespace.identity`: by now the path may name another.
        var identity: UInt64
    }

    package struct State: Codable, Sendable, Equatable {
        var id: String
        var bundle: String
        /// Where the server listens.
        package var socket: String?
        /// Directories of the host's cgroups that are the pod's own.
        var cgroups: [String] = []
        /// Where the pod has changed interfaces.
        var network: NetworkRecord?
        package var processes: [ProcessRecord] = []
    }

    /// Holds the directories of pods: `paths.root`, or one of an engine's namespace below it.
    private let root: String
    private let id: String
    package var path: String { "\(root)/\(id)" }
    private var lockPath: String { path + "/lock" }
    private var statePath: String { path + "/state.json" }

    package init(root: String, id: String) { (self.root, self.id) = (root, id) }

    /// What the name of a directory begins with that holds the pods of one of containerd's namespaces.
    static let namespacePrefix = "containerd-"

    /// The directory that holds the pods of one of containerd's namespaces.
    ///
    /// - Parameter root: `paths.root`.
    package static func root(ofNamespace namespace: String, below root: String) -> String {
        "\(root)/\(namespacePrefix)\(namespace)"
    }

    /// How often a directory is made again that the end of another pod has removed.
    private static let attempts = 100

    /// Makes the directory and takes its lock. What a dead server left there is removed first.
    ///
    /// - Throws: `SandboxError.alreadyExists` when a live pod has this id.
    package func create() throws -> SharedDescriptor {
        for _ in 0..<Self.attempts {
            try makeDirectories(root, mode: 0o711)
            if mkdir(path, 0o700) == 0 { return try lock() }
            switch errno {
            // The last pod of the namespace has ended since, and its directory with it.
            case ENOENT: continue
            case EEXIST:
                guard isAbandoned() else { throw SandboxError.alreadyExists(id) }
                sweep()
            default: throw SystemError.last("mkdir", path)
            }
        }
        throw SystemError("mkdir", path, errno: .fileExists)
    }

    private func lock() throws -> SharedDescriptor {
        do {
            let lock = try OwnedDescriptor.open(lockPath, O_RDWR | O_CREAT | O_EXCL, mode: 0o600)
            try check("flock", lockPath, flock(lock.raw, LOCK_EX | LOCK_NB))
            return SharedDescriptor(lock)
        } catch {
            sweep()
            throw error
        }
    }

    /// What the server of a new pod will listen at.
    package struct Listeners: Sendable {
        /// The path of the Task service's socket.
        package var socket: String
        package var services: SharedDescriptor
        /// Takes host processes; see `HandedProcesses`.
        package var processes: SharedDescriptor
    }

    /// Makes the sockets at which the server of a new pod will listen, and writes the path down. The path is short, as a
    /// socket's may have 107 bytes (unix(7)), and an id 255.
    ///
    /// - Parameter root: `paths.root`.
    package func listen(below root: String) throws -> Listeners {
        var number: UInt64 = 0
        try check("getentropy", "", withUnsafeMutableBytes(of: &number) { getentropy($0.baseAddress, $0.count) })
        let directory = "\(root)/\(Self.socketDirectory)"
        let socket = "\(directory)/\(String(number, radix: 36))"
        do {
            let services = try Self.listen(at: socket, in: directory)
            let processes = SharedDescriptor(
                try UnixAddress.listen(HandedProcesses.path(of: socket), type: SOCK_SEQPACKET))
            try write(State(id: id, bundle: "", socket: socket))
            return Listeners(socket: socket, services: services, processes: processes)
        } catch {
            // Nothing is written down, so `sweep` does not know of it.
            unlink(socket)
            unlink(HandedProcesses.path(of: socket))
            rmdir(directory)
            throw error
        }
    }

    private static func listen(at socket: String, in directory: String) throws -> SharedDescriptor {
        var attempt = 1
        while true {
            try makeDirectories(directory, mode: 0o711)
            do throws(SystemError) { return SharedDescriptor(try UnixAddress.listen(socket)) } catch {
                // The last socket has been removed since, and the directory with it.
                guard error.errno == .noSuchFileOrDirectory, attempt < attempts else { throw error }
                attempt += 1
            }
        }
    }

    /// Below `paths.root`: holds the sockets of pods. No container's id has this name.
    static let socketDirectory = "@"

    package var exists: Bool { access(path, F_OK) == 0 }

    /// No process holds the lock: the pod's server is dead, or there never was one.
    package func isAbandoned() -> Bool {
        guard let lock = try? OwnedDescriptor.open(lockPath, O_RDWR) else {
            // Being made at this moment, or its maker died between two steps.
            var facts = stat()
            return stat(path, &facts) == 0 && time(nil) - facts.st_mtim.tv_sec > 10
        }
        return flock(lock.raw, LOCK_EX | LOCK_NB) == 0
    }

    /// The pod's server is dead, or dies within `limit`: its connections close a moment before its lock is free. False at
    /// once where there is no such pod.
    package func isAbandoned(within limit: Duration) -> Bool {
        let end = ContinuousClock.now + limit
        while !isAbandoned() {
            guard access(path, F_OK) == 0, ContinuousClock.now < end else { return false }
            usleep(5000)
        }
        return true
    }

    func write(_ state: State) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        try replaceFile(statePath, by: statePath + ".new", with: Array(encoder.encode(state)))
    }

    package func read() -> State? {
        guard let bytes = try? Data(contentsOf: URL(filePath: statePath)) else { return nil }
        return try? JSONDecoder().decode(State.self, from: bytes)
    }

    /// Ends every process of the pod that still runs, undoes what the pod has changed on the host, and removes the
    /// directory; with the last pod of a namespace, the namespace's directory too.
    package func sweep() {
        // A directory that another pod has something in is not removed by rmdir(2).
        let state = read()
        ProcessRecord.end((state?.processes ?? []).filter { $0.pid != getpid() })
        state?.network?.clear()
        if let socket = state?.socket {
            unlink(socket)
            unlink(HandedProcesses.path(of: socket))
            let suffix = "/\(socket.split(separator: "/").last ?? "")"
            let directory = socket.dropLast(suffix.count)
            if directory.hasSuffix("/\(Self.socketDirectory)") { rmdir(String(directory)) }
        }
        HostCgroup.remove(state?.cgroups ?? [])
        for name in ["state.json", "state.json.new", "lock"] { unlink("\(path)/\(name)") }
        rmdir(path)
        if root.split(separator: "/").last?.hasPrefix(Self.namespacePrefix) == true { rmdir(root) }
    }
}

extension StateDirectory.NetworkRecord {
    /// nil for a namespace that ends with the pod.
    init?(_ network: SandboxPlan.Network) {
        guard case .existing(let path) = network, let namespace = try? NetworkNamespace(path: path) else { return nil }
        self.init(path: path, identity: namespace.identity)
    }

    /// Frees the interfaces, as far as the namespace is there still.
    func clear() {
        guard let namespace = try? NetworkNamespace(path: path), namespace.identity == identity else { return }
        try? PodNetwork.clear(namespace)
    }
}
