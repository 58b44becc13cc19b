/// What a runtime supports of the specification, as engines ask for it: runc's `features` command, containerd's
/// `RuntimeInfo`. A value that is absent is unknown, and no refusal.
///
/// Source: runtime-spec, features.md and features-linux.md.
public struct Features: Codable, Sendable, Equatable {
    public var ociVersionMin: String
    public var ociVersionMax: String
    /// The points of `Hooks` at which hooks are run.
    public var hooks: [String]
    /// Those that are not a file system's own.
    public var mountOptions: [String]
    public var linux: Linux
    public var annotations: [String: String] = [:]
    /// Annotations that may lessen what isolates a container; one that ends with a dot is a prefix.
    public var potentiallyUnsafeConfigAnnotations: [String] = []

    public struct Linux: Codable, Sendable, Equatable {
        public var namespaces: [String]
        public var capabilities: [String]
        public var cgroup: Cgroup
        public var seccomp: Seccomp
        public var apparmor: Switch
        public var selinux: Switch
        public var intelRdt: Switch
        public var mountExtensions: MountExtensions
        public var netDevices: Switch
    }

    /// A feature that is there or not.
    public struct Switch: Codable, Sendable, Equatable {
        public var enabled: Bool
    }

    public struct Cgroup: Codable, Sendable, Equatable {
        public var v1: Bool
        public var v2: Bool
        public var systemd: Bool
        public var systemdUser: Bool
        public var rdma: Bool
    }

    public struct Seccomp: Codable, Sendable, Equatable {
        public var enabled: Bool
        public var actions: [String]
        public var operators: [String]
        public var archs: [String]
        public var knownFlags: [String]
        public var supportedFlags: [String]
    }

    public struct MountExtensions: Codable, Sendable, Equatable {
        public var idmap: Switch
    }
}

extension Features {
    /// What Martlet supports: what `Spec.unsupported` and the agent do not refuse.
    public static let martlet = Features(
        ociVersionMin: "1.0.0", ociVersionMax: "1.2.0",
        hooks: ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        mountOptions: mountOptions,
        linux: Linux(
            namespaces: OCISpec.Linux.Namespace.Kind.allCases.map(\.rawValue).sorted(),
            capabilities: Capabilities.names,
            // On the host, where a container's cgroup is made; its limits act in the guest.
            cgroup: Cgroup(v1: true, v2: true, systemd: false, systemdUser: false, rdma: false),
            seccomp: seccomp, apparmor: Switch(enabled: false), selinux: Switch(enabled: false),
            intelRdt: Switch(enabled: false), mountExtensions: MountExtensions(idmap: Switch(enabled: true)),
            netDevices: Switch(enabled: false)),
        // They change the pod's machine, where the configuration allows that (engine.annotations).
        potentiallyUnsafeConfigAnnotations: ["io.martlet."])

    /// Those whose propagation would have to lead from the guest to the host (shared) are missing.
    private static let mountOptions: [String] = {
        let attributes = [
            "atime", "dev", "diratime", "exec", "noatime", "nodev", "nodiratime", "noexec", "norelatime",
            "nostrictatime",
            "nosuid", "nosymfollow", "relatime", "ro", "rw", "strictatime", "suid", "symfollow",
        ]
        let others = [
            "acl", "async", "bind", "defaults", "dirsync", "idmap", "iversion", "lazytime", "loud", "mand", "noacl",
            "noiversion",
            "nolazytime", "nomand", "private", "rbind", "remount", "ridmap", "rprivate", "rslave", "runbindable",
            "silent", "slave", "sync",
            "tmpcopyup", "unbindable",
        ]
        return (attributes + attributes.map { "r\($0)" } + others).sorted()
    }()

    private static let seccomp = Seccomp(
        enabled: true,
        actions: [
            "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD",
            "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP",
        ],
        operators: [
            "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ",
            "SCMP_CMP_NE",
        ],
        archs: ["SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"],
        knownFlags: flags + ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
        supportedFlags: flags)

    private static let flags = ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]
}
