import GuestSystem
import OCISpec

/// The namespaces of a container: which are its own, and how they begin.
public struct NamespacePlan: Codable, Sendable, Equatable {
    /// Namespaces of another container that the container joins.
    public struct Joined: Codable, Sendable, Equatable {
        public var container: String
        /// CLONE_NEW*.
        public var flags: UInt64
    }

    /// CLONE_NEW* of the container's own; what is neither among them nor joined is the sandbox's.
    public var own: UInt64 = 0
    /// One for each other container.
    public var joined: [Joined] = []
    /// Whether its processes are among those of the sandbox, in the process id namespace that containers share on request.
    public var sharesProcesses = false
    /// Whether it may name the host: its uts namespace was asked for, and not only left as it is.
    var sharesNames = false
    /// Of a user namespace of the container's own.
    private var users: [Linux.IDMapping] = []
    private var groups: [Linux.IDMapping] = []
    /// What /proc/PID/timens_offsets gets.
    public var clockOffsets = ""

    /// Made by the process itself, once it is in its cgroup, and before others use the clocks.
    static let later = UInt64(NamespaceFlag.cgroup | NamespaceFlag.time)

    /// CLONE_NEW* of those that its first process is started in.
    public var cloneFlags: UInt64 { own & ~Self.later }
    /// CLONE_NEW* of those that a further process enters.
    public var entered: UInt64 {
        joined.reduce(own | (sharesProcesses ? UInt64(NamespaceFlag.pid) : 0)) { $0 | $1.flags }
    }

    /// The container whose process id namespace it joins.
    public var processesOf: String? {
        joined.first { $0.flags & UInt64(NamespaceFlag.pid) != 0 }?.container
    }

    /// What /proc/PID/uid_map and gid_map get.
    public var userMap: String { Self.map(users) }
    public var groupMap: String { Self.map(groups) }

    /// The guest's id of a user of the container; nil for one that is not mapped.
    public func guestUser(of user: UInt32) -> UInt32? {
        guard owns(NamespaceFlag.user) else { return user }
        let range = users.first { $0.containerID <= user && user - $0.containerID < $0.size }
        return range.map { $0.hostID &+ (user - $0.containerID) }
    }

    /// Whether a namespace (CLONE_NEW*) is the container's own.
    public func owns(_ namespace: Int32) -> Bool { own & UInt64(UInt32(bitPattern: namespace)) != 0 }

    /// Throws for one that is neither made nor the sandbox's, by name.
    init(_ linux: Linux) throws(AgentFailure) {
        for namespace in linux.namespaces {
            if namespace.isSandboxes {
                switch namespace.kind {
                case .pid: sharesProcesses = true
                case .uts: sharesNames = true
                default: break
                }
                continue
            }
            if let container = namespace.container, let kind = namespace.kind {
                if kind == .uts { sharesNames = true }
                join(container, UInt64(UInt32(bitPattern: Self.flag(kind))))
                continue
            }
            guard namespace.path.isEmpty, let kind = namespace.kind else {
                throw AgentFailure(
                    .unimplemented,
                    "linux.namespaces: joining \(namespace.type) namespace \(namespace.path) is not supported")
            }
            own |= UInt64(UInt32(bitPattern: Self.flag(kind)))
        }
        guard owns(NamespaceFlag.mount) else {
            throw AgentFailure(
                .unimplemented, "linux.namespaces: a container without a mount namespace is not supported")
        }
        users = linux.uidMappings
        groups = linux.gidMappings
        clockOffsets = linux.timeOffsets.keys.sorted().map { clock in
            let offset = linux.timeOffsets[clock]
            return "\(clock) \(offset?.secs ?? 0) \(offset?.nanosecs ?? 0)\n"
        }.joined()
    }

    private mutating func join(_ container: String, _ flag: UInt64) {
        if let index = joined.firstIndex(where: { $0.container == container }) {
            joined[index].flags |= flag
        } else {
            joined.append(Joined(container: container, flags: flag))
        }
    }

    private static func flag(_ kind: Linux.Namespace.Kind) -> Int32 {
        switch kind {
        case .pid: NamespaceFlag.pid
        case .network: NamespaceFlag.network
        case .mount: NamespaceFlag.mount
        case .ipc: NamespaceFlag.ipc
        case .uts: NamespaceFlag.uts
        case .cgroup: NamespaceFlag.cgroup
        case .user: NamespaceFlag.user
        case .time: NamespaceFlag.time
        }
    }

    /// user_namespaces(7).
    private static func map(_ mappings: [Linux.IDMapping]) -> String {
        mappings.map { "\($0.containerID) \($0.hostID) \($0.size)\n" }.joined()
    }
}
