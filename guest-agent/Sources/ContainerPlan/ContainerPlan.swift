import Glibc
import GuestSystem
import LinuxSystem
public import OCISpec

/// A container as its init sets it up: a value, which can be inspected without making anything.
public struct ContainerPlan: Codable, Sendable, Equatable {
    public struct MountPlan: Codable, Sendable, Equatable {
        /// Absolute in the container.
        public var destination: String
        /// File system type; empty for a bind.
        public var type: String
        /// A path in the guest for a bind, else what the file system takes.
        public var source: String
        public var options: MountOptions

        public init(destination: String, type: String, source: String, options: MountOptions) {
            self.destination = destination
            self.type = type
            self.source = source
            self.options = options
        }

        /// A /dev that becomes read-only when all of it is made.
        public var isReadOnlyDeviceDirectory: Bool {
            RootDirectory.components(destination) == ["dev"] && !options.isBind
                && options.attributes.set & MountOptions.readOnly != 0
        }
    }

    public struct DeviceNode: Codable, Sendable, Equatable {
        /// Absolute in the container.
        public var path: String
        /// Type and permissions.
        public var mode: UInt32
        public var major: UInt32
        public var minor: UInt32
        public var uid: UInt32
        public var gid: UInt32

        public init(path: String, mode: UInt32, major: UInt32, minor: UInt32, uid: UInt32, gid: UInt32) {
            self.path = path
            self.mode = mode
            self.major = major
            self.minor = minor
            self.uid = uid
            self.gid = gid
        }
    }

    public struct KernelParameter: Codable, Sendable, Equatable {
        /// Below /proc/sys.
        public var path: String
        public var value: String
    }

    public var namespaces: NamespacePlan
    /// A path in the guest.
    public var root: String
    public var rootReadOnly: Bool
    /// MS_SHARED and its like; nil leaves it private.
    public var rootPropagation: UInt?
    public var mounts: [MountPlan]
    public var devices: [DeviceNode]
    /// Whether it has all devices of the guest too.
    public var hasGuestDevices: Bool
    public var hostname: String
    public var domainname: String
    public var kernelParameters: [KernelParameter]
    public var maskedPaths: [String]
    public var readOnlyPaths: [String]
    public var process: ProcessPlan
    public var hooks: HookPlan

    /// Whether a namespace (CLONE_NEW*) is the container's own.
    public func owns(_ namespace: Int32) -> Bool { namespaces.owns(namespace) }

    /// Throws when the specification can't be or asks for what the agent does not do; names it.
    public init(_ spec: Spec) throws(AgentFailure) {
        let problems = spec.problems()
        if !problems.isEmpty {
            throw AgentFailure(.invalidArgument, problems.map(\.description).joined(separator: "; "))
        }
        guard let process = spec.process, let root = spec.root else {
            throw AgentFailure(.invalidArgument, "the specification has no process or no root")
        }
        let linux = spec.linux ?? Linux()
        namespaces = try NamespacePlan(linux)
        hooks = HookPlan(spec)
        self.root = root.path
        rootReadOnly = root.readonly
        rootPropagation = MountOptions.propagations[linux.rootfsPropagation]
        mounts = try Self.mounts(spec.mounts)
        devices = linux.devices.map(DeviceNode.init)
        hasGuestDevices = linux.allowsAllDevices
        hostname = spec.hostname
        domainname = spec.domainname
        kernelParameters = linux.sysctl.keys.sorted().map {
            KernelParameter(path: Self.parameterPath($0), value: linux.sysctl[$0] ?? "")
        }
        maskedPaths = linux.maskedPaths
        readOnlyPaths = linux.readonlyPaths
        self.process = try ProcessPlan(process)
        self.process.seccomp = try linux.seccomp.map { seccomp throws(AgentFailure) in
            try SeccompFilter(try SeccompPlan(seccomp))
        }
        self.process.personality = try Self.personality(linux.personality)
        if !owns(NamespaceFlag.uts), !namespaces.sharesNames, !hostname.isEmpty || !domainname.isEmpty {
            throw AgentFailure(.invalidArgument, "hostname: the container has no uts namespace")
        }
    }

    /// linux/personality.h.
    private static func personality(_ personality: Linux.Personality?) throws(AgentFailure) -> UInt? {
        guard let personality else { return nil }
        if let flag = personality.flags.first {
            throw AgentFailure(.invalidArgument, "linux.personality.flags: \"\(flag)\": there are none")
        }
        switch personality.domain {
        case "LINUX": return 0
        case "LINUX32": return 8
        default:
            throw AgentFailure(
                .invalidArgument, "linux.personality.domain: \"\(personality.domain)\" is neither LINUX nor LINUX32")
        }
    }

    private static func mounts(_ mounts: [Mount]) throws(AgentFailure) -> [MountPlan] {
        var plans: [MountPlan] = []
        for (index, mount) in mounts.enumerated() {
            let name = "mounts[\(index)] (\(mount.destination))"
            guard mount.uidMappings.isEmpty, mount.gidMappings.isEmpty else {
                throw AgentFailure(.unimplemented, "\(name): id-mapped mounts are not supported")
            }
            let options: MountOptions
            do throws(AgentFailure) { options = try MountOptions(mount.options) } catch { throw error.during(name) }
            var plan = MountPlan(
                destination: mount.destination, type: mount.type, source: mount.source, options: options)
            if mount.isBind {
                plan.options.isBind = true
                plan.type = ""
            } else if mount.type == "cgroup" {
                // The guest has the unified hierarchy only.
                plan.type = "cgroup2"
                plan.options.data = ""
            }
            guard !plan.options.copiesUp || plan.type == "tmpfs" else {
                throw AgentFailure(.invalidArgument, "\(name): tmpcopyup is for a tmpfs alone")
            }
            plans.append(plan)
        }
        return plans
    }

    /// `net.ipv4.ip_forward` → `net/ipv4/ip_forward`; a name with slashes has its dots kept (sysctl(8)).
    static func parameterPath(_ name: String) -> String {
        let firstSeparator = name.first { $0 == "." || $0 == "/" }
        guard firstSeparator == "." else { return name }
        return String(name.map { $0 == "." ? "/" : $0 == "/" ? "." : $0 })
    }
}

extension ContainerPlan.DeviceNode {
    init(_ device: Linux.Device) {
        let type: UInt32 =
            switch device.type {
            case "b": UInt32(S_IFBLK)
            case "p": UInt32(S_IFIFO)
            default: UInt32(S_IFCHR)
            }
        self.init(
            path: device.path, mode: type | (device.fileMode ?? 0o666) & 0o7777,
            major: UInt32(clamping: device.major ?? 0), minor: UInt32(clamping: device.minor ?? 0),
            uid: device.uid ?? 0, gid: device.gid ?? 0)
    }

    init(_ path: String, _ major: UInt32, _ minor: UInt32) {
        self.init(path: path, mode: UInt32(S_IFCHR) | 0o666, major: major, minor: minor, uid: 0, gid: 0)
    }

    /// What every container has (runtime-spec, config-linux.md, Default Devices).
    public static let standard = [
        Self("/dev/null", 1, 3), Self("/dev/zero", 1, 5), Self("/dev/full", 1, 7), Self("/dev/random", 1, 8),
        Self("/dev/urandom", 1, 9), Self("/dev/tty", 5, 0),
    ]
}
