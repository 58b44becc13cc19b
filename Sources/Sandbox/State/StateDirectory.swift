import CLinux
import FoundationEssentials
import Glibc
import LinuxSystem
import OCISpec
import PodNetwork

/// What is on disk of one pod: `ROOT/ID/`, with a lock that its server holds as long as it lives.
///
/// `state.json` names the processes, so that whoever comes after a crash can end exactly those, and the socket at which
/// the server listens.
package struct StateDirectory: Sendable, Equatable {
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
        /// By now the path may name another.
        var identity: NamespaceIdentity
    }

    package struct State: Codable, Sendable, Equatable {
        var id: String
        var bundle: String
        /// Where the server listens.
        package var socket: String?
        /// Where the server answers HTTP requests for the pod's metrics.
        var metrics: String?
        /// Directories of the host's cgroups that are the pod's own.
        var cgroups: [String] = []
        /// Where the pod has changed interfaces.
        var network: NetworkRecord?
        /// The network namespace that the pod is in, its own ones too: a container that names it joins the pod.
        package var networkNamespace: NamespaceIdentity?
        package var processes: [ProcessRecord] = []
        /// Whom the pod's processes run as.
        package var user: UInt32?
        /// The name of the template that its machine has started from; nil: it has booted.
        var template: String?
        /// Whether its machine was ready before there was a pod.
        var isFromPool: Bool?
        /// Checkpoints that are being written, or that go with the pod; nil: none.
        var checkpoints: [CheckpointDirectory.Record]?
    }

    /// Holds the directories of pods: `paths.root`, or one of an engine's namespace below it.
    let root: String
    private let id: String
    package var path: String { "\(root)/\(id)" }
    private var lockPath: String { path + "/lock" }
    private var statePath: String { path + "/state.json" }
    private var endingPath: String { path + "/ending" }

    package init(root: String, id: String) { (self.root, self.id) = (root, id) }

    /// - Parameter path: of the pod's directory.
    package init(path: String) {
        let slash = path.lastIndex(of: "/") ?? path.startIndex
        self.init(root: String(path[..<slash]), id: String(path[slash...].dropFirst()))
    }

    package var exists: Bool { access(path, F_OK) == 0 }

    /// Waits until no other process decides which pod a container belongs to, and lets none until the descriptor is closed.
    ///
    /// - Parameter root: `paths.root`.
    static func lock(root: String) throws -> SharedDescriptor {
        try makeDirectories(root, mode: 0o711)
        let directory = try OwnedDescriptor.open(root, O_RDONLY | O_DIRECTORY)
        _ = try retrying("flock", root) { flock(directory.raw, LOCK_EX) }
        return SharedDescriptor(directory)
    }

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
            // Nobody holds it but for a moment, to see whether it is held.
            _ = try retrying("flock", lockPath) { flock(lock.raw, LOCK_EX) }
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
    /// - Parameters:
    ///   - root: `paths.root`.
    ///   - network: the network namespace that the pod will be in, where it is there already.
    package func listen(below root: String, network: NamespaceIdentity? = nil) throws -> Listeners {
        var number: UInt64 = 0
        try check("getentropy", "", withUnsafeMutableBytes(of: &number) { getentropy($0.baseAddress, $0.count) })
        let directory = "\(root)/\(Self.socketDirectory)"
        let socket = "\(directory)/\(String(number, radix: 36))"
        do {
            let services = try Self.listen(at: socket, in: directory)
            let processes = SharedDescriptor(
                try UnixAddress.listen(HandedProcesses.path(of: socket), type: SOCK_SEQPACKET))
            try write(State(id: id, bundle: "", socket: socket, networkNamespace: network))
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

    /// Where a pod's server answers HTTP requests for its metrics.
    ///
    /// - Parameter socket: of its services.
    package static func metricsPath(of socket: String) -> String { socket + ".m" }

    /// No process holds the lock: the pod's server is dead, or there never was one.
    package func isAbandoned() -> Bool {
        guard let lock = try? OwnedDescriptor.open(lockPath, O_RDWR) else {
            // Being made at this moment, or its maker died between two steps.
            var facts = stat()
            return stat(path, &facts) == 0 && time(nil) - facts.st_mtim.tv_sec > 10
        }
        return flock(lock.raw, LOCK_SH | LOCK_NB) == 0
    }

    /// Whoever made the directory has died before there was a server. To be asked while nobody makes one.
    func isUnfinished() -> Bool {
        guard read()?.processes.isEmpty ?? true else { return false }
        return access(lockPath, F_OK) != 0 || isAbandoned()
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
        try replaceFile(statePath, by: statePath + ".new", with: JSON.encode(state))
    }

    package func read() -> State? {
        guard let bytes = try? Data(contentsOf: URL(filePath: statePath)) else { return nil }
        return try? JSONDecoder().decode(State.self, from: bytes)
    }

    /// Notes that the pod is about to end: no container joins it any more.
    func markEnding() { _ = try? OwnedDescriptor.open(endingPath, O_WRONLY | O_CREAT, mode: 0o600) }

    package var isEnding: Bool { access(endingPath, F_OK) == 0 }

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
            unlink(Self.metricsPath(of: socket))
            let suffix = "/\(socket.split(separator: "/").last ?? "")"
            let directory = socket.dropLast(suffix.count)
            if directory.hasSuffix("/\(Self.socketDirectory)") { rmdir(String(directory)) }
        }
        HostCgroup.remove(state?.cgroups ?? [])
        for checkpoint in state?.checkpoints ?? [] { checkpoint.remove() }
        for name in ["state.json", "state.json.new", "ending", "lock"] { unlink("\(path)/\(name)") }
        rmdir(path)
        // That of a command which died before it had a socket in it.
        rmdir("\(root)/\(Self.socketDirectory)")
        if root.split(separator: "/").last?.hasPrefix(Self.namespacePrefix) == true { rmdir(root) }
    }
}

extension StateDirectory.NetworkRecord {
    /// nil for a namespace that ends with the pod.
    init?(_ network: SandboxPlan.Network) {
        guard case .existing(let path) = network, let identity = NamespaceIdentity(path: path) else { return nil }
        self.init(path: path, identity: identity)
    }

    /// Frees the interfaces, as far as the namespace is there still.
    func clear() {
        guard let namespace = try? NetworkNamespace(path: path), namespace.identity == identity else { return }
        try? PodNetwork.clear(namespace)
    }
}
