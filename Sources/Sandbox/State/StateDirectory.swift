import FoundationEssentials
import Glibc
import LinuxSystem
import PodNetwork

/// What is on disk of one pod: `ROOT/ID/`, with a lock that its server holds as long as it lives.
///
/// `state.json` names the processes, so that whoever comes after a crash can end exactly those; `task.sock` is where
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
        /// Where an engine reaches the server, where that is not in this directory.
        package var socket: String?
        /// Directories of the host's control groups that are the pod's own.
        var cgroups: [String] = []
        /// Where the pod has changed interfaces.
        var network: NetworkRecord?
        package var processes: [ProcessRecord] = []
    }

    package let path: String
    package var socketPath: String { path + "/task.sock" }
    private var lockPath: String { path + "/lock" }
    private var statePath: String { path + "/state.json" }

    package init(root: String, id: String) { path = "\(root)/\(id)" }
    init(path: String) { self.path = path }

    /// Makes the directory and takes its lock. What a server left that is dead is cleared away first.
    ///
    /// - Throws: `SandboxError.alreadyExists` when a live pod has this id.
    package func create(root: String, id: String) throws -> SharedDescriptor {
        try makeDirectories(root, mode: 0o711)
        if mkdir(path, 0o700) != 0 {
            guard errno == EEXIST else { throw SystemError.last("mkdir", path) }
            guard isAbandoned() else { throw SandboxError.alreadyExists(id) }
            sweep()
            try check("mkdir", path, mkdir(path, 0o700))
        }
        do {
            let lock = try OwnedDescriptor.open(lockPath, O_RDWR | O_CREAT | O_EXCL, mode: 0o600)
            try check("flock", lockPath, flock(lock.raw, LOCK_EX | LOCK_NB))
            return SharedDescriptor(lock)
        } catch {
            sweep()
            throw error
        }
    }

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

    /// Writes down where the server of a new pod will listen.
    package func announce(id: String, socket: String) throws { try write(State(id: id, bundle: "", socket: socket)) }

    func write(_ state: State) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        let bytes = try encoder.encode(state)
        let temporary = statePath + ".new"
        let file = try OwnedDescriptor.open(temporary, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o600)
        let written = try bytes.withUnsafeBytes { bytes in
            try retrying("write", temporary) { Glibc.write(file.raw, bytes.baseAddress, bytes.count) }
        }
        guard written == bytes.count else { throw SystemError("write", temporary, errno: .noSpace) }
        try check("rename", statePath, rename(temporary, statePath))
    }

    package func read() -> State? {
        guard let bytes = try? Data(contentsOf: URL(filePath: statePath)) else { return nil }
        return try? JSONDecoder().decode(State.self, from: bytes)
    }

    /// Ends every process of the pod that still runs, undoes what the pod has changed on the host, and removes the directory.
    package func sweep() {
        let state = read()
        ProcessRecord.end((state?.processes ?? []).filter { $0.pid != getpid() })
        state?.network?.clear()
        if let socket = state?.socket { unlink(socket) }
        HostCgroup.remove(state?.cgroups ?? [])
        for name in ["task.sock", "state.json", "state.json.new", "lock"] { unlink("\(path)/\(name)") }
        rmdir(path)
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
