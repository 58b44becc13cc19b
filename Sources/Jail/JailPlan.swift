import CLinux
import Glibc

/// What one process of a pod may do, as a value: `Jail.enter` applies it, `martlet plan` prints it, and `martlet inspect --jail`
/// holds a running process against it.
public struct JailPlan: Sendable, Equatable, Codable {
    /// The kinds of processes that serve a guest.
    public enum Kind: String, Sendable, Codable, CaseIterable {
        /// `martlet-vmm`.
        case vmm
        /// `martlet-device vsock`.
        case vsock
        /// `martlet-device files`.
        case files
        /// `martlet-device blk`.
        case disk = "blk"
        /// `martlet-device container`.
        case container
        /// QEMU.
        case qemu
    }

    /// Namespaces of the process's own (namespaces(7)), by their names in `/proc/PID/ns`.
    public enum Namespace: String, Sendable, Codable, CaseIterable {
        case mount = "mnt"
        case pid, net, ipc, uts, cgroup

        /// CLONE_NEW*.
        var flag: Int32 {
            switch self {
            case .mount: CLONE_NEWNS
            case .pid: CLONE_NEWPID
            case .net: CLONE_NEWNET
            case .ipc: CLONE_NEWIPC
            case .uts: CLONE_NEWUTS
            case .cgroup: CLONE_NEWCGROUP
            }
        }
    }

    /// What is in the process's root directory.
    public enum Root: Sendable, Equatable, Codable {
        /// Nothing; read-only.
        case empty
        /// The container's files, as its bundle has them: engines copy from and to the container through them.
        case container
        /// These files and directories of the host, each at its own path, and nothing else; read-only.
        case only([String])
    }

    /// Limits (setrlimit(2)); nil: as it is.
    public struct Limits: Sendable, Equatable, Codable {
        /// RLIMIT_CORE, bytes.
        public var core: UInt64 = 0
        /// RLIMIT_FSIZE, bytes.
        public var fileSize: UInt64?
        /// RLIMIT_NOFILE; nil: the hard limit.
        public var openFiles: UInt64?
        /// RLIMIT_NPROC: threads of the user.
        public var threads: UInt64?
    }

    public var kind: Kind
    /// User and group, the real, effective and saved ones. There are no supplementary groups.
    public var user: UInt32
    public var capabilities: Capabilities = []
    public var namespaces: [Namespace]
    public var root = Root.empty
    /// Whether it has a procfs of its own pid namespace, as a descriptor, with nothing in it but its own processes.
    public var procfs = false
    public var limits = Limits()
    /// Whether the kernel ends it with its parent.
    public var endsWithParent = true
    /// What its descriptors may lead to.
    public var descriptors: [DescriptorKind]
    /// The system calls that each kind of its threads may make.
    public var filters: [SystemCallFilter]

    /// The user of nobody: processes without a pod.
    public static let nobody: UInt32 = 65534

    /// The plan of a kind of process.
    ///
    /// - Parameter user: of the pod.
    public init(_ kind: Kind, user: UInt32) {
        self.kind = kind
        self.user = user
        namespaces = Namespace.allCases
        filters = SystemCallFilter.filters(of: kind)
        descriptors = [.null, .pipe, .socket, .eventpoll, .eventfd, .timerfd, .memory]
        switch kind {
        case .vmm:
            limits.threads = 1024
            descriptors += [.kvm, .machine, .vcpu, .tap, .file, .ring]
        case .disk:
            limits.threads = 1024
            descriptors += [.file, .ring]
        case .vsock:
            limits.threads = 0
            // A large message goes in a file of memory.
            limits.fileSize = 1 << 20
        case .files:
            // It takes on the user of each request; a capability lets it.
            self.user = 0
            capabilities = .fileServer
            procfs = true
            descriptors += [.file]
        case .container:
            // The engine must see it, and the first process of a namespace can't end by a signal.
            namespaces = [.mount, .ipc, .uts, .cgroup]
            root = .container
            limits.threads = 0
            limits.fileSize = 0
            limits.openFiles = 64
            endsWithParent = false
            // The container's standard streams among them.
            descriptors = [.null, .pipe, .socket, .file, .terminal]
        case .qemu:
            limits.threads = 1024
            descriptors += [.kvm, .machine, .vcpu, .tap, .vhostNet, .signalfd, .file]
        }
    }
}
