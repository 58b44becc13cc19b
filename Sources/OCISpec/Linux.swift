import AgentContract

/// The properties that only Linux has (config-linux.md).
public struct Linux: Codable, Sendable, Equatable {
    @OrEmpty public var uidMappings: [IDMapping] = []
    @OrEmpty public var gidMappings: [IDMapping] = []
    @OrEmpty public var sysctl: [String: String] = [:]
    public var resources: Resources?
    @OrEmpty public var cgroupsPath: String = ""
    @OrEmpty public var namespaces: [Namespace] = []
    @OrEmpty public var devices: [Device] = []
    @OrEmpty public var netDevices: [String: NetDevice] = [:]
    public var seccomp: Seccomp?
    @OrEmpty public var rootfsPropagation: String = ""
    @OrEmpty public var maskedPaths: [String] = []
    @OrEmpty public var readonlyPaths: [String] = []
    @OrEmpty public var mountLabel: String = ""
    public var intelRdt: IntelRdt?
    public var memoryPolicy: Opaque?
    public var personality: Personality?
    /// By clock: `monotonic`, `boottime`.
    @OrEmpty public var timeOffsets: [String: TimeOffset] = [:]

    public init(
        namespaces: [Namespace] = [], sysctl: [String: String] = [:], resources: Resources? = nil,
        maskedPaths: [String] = [], readonlyPaths: [String] = []
    ) {
        self.namespaces = namespaces
        self.sysctl = sysctl
        self.resources = resources
        self.maskedPaths = maskedPaths
        self.readonlyPaths = readonlyPaths
    }

    /// A range of ids of a user namespace.
    public struct IDMapping: Codable, Sendable, Equatable {
        public var containerID: UInt32
        public var hostID: UInt32
        public var size: UInt32

        public init(containerID: UInt32, hostID: UInt32, size: UInt32) {
            self.containerID = containerID
            self.hostID = hostID
            self.size = size
        }
    }

    /// A namespace of the container's own, or with `path` one that it joins.
    public struct Namespace: Codable, Sendable, Equatable {
        public var type: String
        @OrEmpty public var path: String = ""

        public init(_ kind: Kind, path: String = "") {
            type = kind.rawValue
            self.path = path
        }

        /// The kinds of namespaces that the containers of a pod may share.
        public static let sharedKinds: [Kind] = [.ipc, .uts, .pid]
        /// Whether the namespace is of one of these kinds.
        public var isShareable: Bool { kind.map(Self.sharedKinds.contains) ?? false }

        private var sandboxPath: String { "\(GuestPath.sandboxNamespaces)/\(type)" }

        /// Whether it is the namespace that the containers of the pod share.
        public var isSandboxes: Bool { isShareable && path == sandboxPath }

        /// Changes it to the namespace that the containers of the pod share.
        public mutating func joinSandbox() { path = sandboxPath }

        /// The container of the pod whose namespace it is; nil for any other.
        public var container: String? {
            guard isShareable, path.hasPrefix("\(GuestPath.containers)/") else { return nil }
            let id = path.dropFirst(GuestPath.containers.count + 1).prefix { $0 != "/" }
            return path == "\(GuestPath.namespaces(of: String(id)))/\(type)" ? String(id) : nil
        }

        /// Changes it to the namespace of another container of the pod.
        public mutating func join(container id: String) { path = "\(GuestPath.namespaces(of: id))/\(type)" }

        /// Whether it is in the guest: the pod's, or another container's of the pod.
        public var isGuests: Bool { isSandboxes || container != nil }

        /// nil for a type that the specification does not know; validation refuses it.
        public var kind: Kind? { Kind(rawValue: type) }

        public enum Kind: String, CaseIterable, Sendable {
            case pid, network, mount, ipc, uts, user, cgroup, time
        }
    }

    /// A device node that is created in the container.
    public struct Device: Codable, Sendable, Equatable {
        /// Absolute path in the container.
        public var path: String
        /// `c` or `u` character, `b` block, `p` fifo.
        public var type: String
        public var major: Int64?
        public var minor: Int64?
        /// Permission bits.
        public var fileMode: UInt32?
        public var uid: UInt32?
        public var gid: UInt32?

        public init(path: String, type: String, major: Int64? = nil, minor: Int64? = nil, fileMode: UInt32? = nil) {
            self.path = path
            self.type = type
            self.major = major
            self.minor = minor
            self.fileMode = fileMode
        }
    }

    /// A network device of the host that moves into the container.
    public struct NetDevice: Codable, Sendable, Equatable {
        @OrEmpty public var name: String = ""

        public init() {}
    }

    /// personality(2).
    public struct Personality: Codable, Sendable, Equatable {
        /// `LINUX` or `LINUX32`.
        public var domain: String
        @OrEmpty public var flags: [String] = []

        public init(domain: String) { self.domain = domain }
    }

    /// Intel Resource Director Technology.
    public struct IntelRdt: Codable, Sendable, Equatable {
        @OrEmpty public var closID: String = ""
        @OrEmpty public var schemata: [String] = []
        @OrEmpty public var l3CacheSchema: String = ""
        @OrEmpty public var memBwSchema: String = ""
        @OrEmpty public var enableCMT: Bool = false
        @OrEmpty public var enableMBM: Bool = false
        @OrEmpty public var enableMonitoring: Bool = false

        public init() {}
    }

    /// The offset of a clock in a time namespace.
    public struct TimeOffset: Codable, Sendable, Equatable {
        public var secs: Int64?
        public var nanosecs: UInt32?

        public init(secs: Int64? = nil, nanosecs: UInt32? = nil) {
            self.secs = secs
            self.nanosecs = nanosecs
        }
    }
}

extension Linux {
    /// A seccomp(2) filter.
    public struct Seccomp: Codable, Sendable, Equatable {
        /// `SCMP_ACT_ERRNO` and its like.
        public var defaultAction: String
        public var defaultErrnoRet: UInt?
        @OrEmpty public var architectures: [String] = []
        @OrEmpty public var flags: [String] = []
        @OrEmpty public var listenerPath: String = ""
        @OrEmpty public var listenerMetadata: String = ""
        @OrEmpty public var syscalls: [Rule] = []

        public init(defaultAction: String) { self.defaultAction = defaultAction }

        /// The action for a set of system calls.
        public struct Rule: Codable, Sendable, Equatable {
            public var names: [String]
            public var action: String
            public var errnoRet: UInt?
            @OrEmpty public var args: [Argument] = []

            public init(names: [String], action: String) {
                self.names = names
                self.action = action
            }
        }

        /// A condition on an argument of a system call.
        public struct Argument: Codable, Sendable, Equatable {
            public var index: UInt
            public var value: UInt64
            public var valueTwo: UInt64?
            /// `SCMP_CMP_EQ` and its like.
            public var op: String

            public init(index: UInt, value: UInt64, op: String) {
                self.index = index
                self.value = value
                self.op = op
            }
        }
    }
}
