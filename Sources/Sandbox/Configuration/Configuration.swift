import Hypervisor
public import OCISpec
public import VMMControl

/// The administrator's settings: `/etc/martlet/martlet.toml` and its drop-ins, typed and checked. docs/configuration.md lists all
/// keys.
public struct Configuration: Sendable, Equatable, Codable {
    public enum Hypervisor: String, Sendable, CaseIterable, Codable { case auto, kvm, qemu, libvirt }
    public enum Accelerator: String, Sendable, CaseIterable, Codable { case auto, kvm, tcg }

    /// The machine of a pod.
    public struct VM: Sendable, Equatable, Codable {
        public var vcpus = 1
        /// How many a pod's machine can get while it runs; nil: as many as the host has.
        public var maximumVCPUs: Int?
        /// The memory of a pod without a limit, MiB.
        public var memoryMiB = 512
        /// What a pod's machine can get while it runs, MiB; nil: as much as the host has.
        public var maximumMemoryMiB: Int?
        /// The memory that the guest needs beside its containers, MiB: added to their limit.
        public var overheadMiB = 64
        /// The memory that a pod's host processes need beside the guest's memory, MiB: subtracted from the limit of the pod's cgroup.
        public var hostMiB = 40
        /// Absolute path; nil: the one that comes with Martlet (see `GuestImage`).
        public var kernel: String?
        /// Absolute path; nil: the one that comes with Martlet.
        public var initramfs: String?
        /// Words appended to the guest kernel's command line.
        public var kernelArguments: [String] = []
        /// An emulated serial port for the kernel's earliest messages, which slows the start.
        public var debugConsole = false
        /// Guest memory in huge pages: a faster start, but memory is allocated 2 MiB at a time.
        public var hugePages = true
        /// The instruction sets of the CPU that a guest sees.
        public var cpu = GuestCPU.Profile.host
        /// Whether a guest sees the CPU's virtualization (vmx, svm), and may run machines of its own.
        public var nested = false
    }

    /// Memory that goes back to the host.
    public struct Memory: Sendable, Equatable, Codable {
        /// Whether memory that is free in a guest goes back by itself.
        public var reporting = true
        /// Whether the guest of an idle pod drops page cache, and gives back what is free then.
        public var reclaim = true
        /// How long a pod has been idle then.
        public var idle = Duration.seconds(60)
        /// The page cache that it keeps, MiB.
        public var floorMiB = 64
    }

    /// What a guest may do with files of the host.
    public struct Files: Sendable, Equatable, Codable {
        /// Whether it may make device nodes.
        public var deviceNodes = false
        /// Whether set-user-id bits and file capabilities mean nothing in volumes, whatever the host's mount says.
        public var nosuid = false
    }

    public struct QEMU: Sendable, Equatable, Codable {
        /// A path, or a name to be found in PATH.
        public var path = "qemu-system-x86_64"
        public var accelerator = Accelerator.auto
        /// The host's kernel, and not QEMU, moves the frames of network interfaces (/dev/vhost-net).
        public var vhostNet = false
    }

    public struct Libvirt: Sendable, Equatable, Codable {
        /// Of the libvirtd.
        public var uri = LibvirtDriver.standardURI
    }

    /// Timeouts for the agent.
    public struct Agent: Sendable, Equatable, Codable {
        /// From the machine's start until the agent replies.
        public var startTimeout = Duration.seconds(30)
        /// For one request, apart from a wait for a process.
        public var requestTimeout = Duration.seconds(30)
        public var heartbeatInterval = Duration.milliseconds(500)
        /// An agent that has not replied for this long is considered dead, and the machine is ended.
        public var heartbeatTimeout = Duration.milliseconds(4000)
        /// From a SIGKILL to a container until the agent reports its end; then the host ends the machine.
        public var killTimeout = Duration.seconds(10)
    }

    /// The cgroup of a pod's host processes.
    public struct Cgroup: Sendable, Equatable, Codable {
        /// An absolute path in the cgroup hierarchy; each pod gets a cgroup of its own below it. nil: the cgroup that the bundle names,
        /// or one of the pod's own below /martlet if it names none.
        public var parent: String?
    }

    /// The settings that an engine may change for a container.
    public struct Engine: Sendable, Equatable, Codable {
        /// Runtime options that an engine may send: `config_path`.
        public var options: [String] = []
        /// Keys that an annotation `io.martlet.KEY` may change.
        public var annotations: [String] = []
    }

    /// Volumes of pods.
    public struct Volumes: Sendable, Equatable, Codable {
        /// The largest ConfigMap, Secret, projected or downward-API volume that is copied into the guest's memory, bytes.
        public var copyLimit = 8 << 20
    }

    /// Networks of pods.
    public struct Network: Sendable, Equatable, Codable {
        /// Whether a guest's frames pass only from the pod's own addresses.
        public var sourceFilter = false
    }

    /// Unix sockets of the host.
    public struct Sockets: Sendable, Equatable, Codable {
        /// Whether a bind mount of a stream socket becomes a socket of the container.
        public var forward = true
    }

    /// The jails of a pod's host processes.
    public struct Jail: Sendable, Equatable, Codable {
        /// The first of the host's users that pods run as; each pod has one for itself.
        public var firstUser = 2_000_000_000
        /// How many there are.
        public var users = 65536
    }

    /// Machines that were saved when their agent was ready, from which pods start.
    public struct Template: Sendable, Equatable, Codable {
        public enum Mode: String, Sendable, CaseIterable, Codable {
            /// Every pod boots.
            case off
            /// A pod starts from the template of its shape, if there is one.
            case on
            /// So, and where there is none it is made in the background.
            case auto
        }

        public var mode = Mode.on
        /// Holds the templates; an absolute path.
        public var directory = "/var/lib/martlet/templates"
        /// What all templates may take, MiB.
        public var maxMiB = 4096
        /// Only pods of the same tenant share a template; empty: pods without one.
        public var tenant = ""
    }

    /// Machines that are restored from templates before there are pods for them.
    public struct Pool: Sendable, Equatable, Codable {
        /// How many machines are kept ready; 0: as many as `martlet pool fill` has made, which are not replaced.
        public var size = 0
        /// Holds their sockets; an absolute path.
        public var directory = "/run/martlet.pool"
    }

    /// The traces of starts.
    public struct Trace: Sendable, Equatable, Codable {
        /// The base of a collector's addresses (`CollectorAddress`); nil: spans go to no collector.
        public var otlpEndpoint: String?
    }

    public struct Paths: Sendable, Equatable, Codable {
        /// The directory for the state of running pods. `--root` overrides it.
        public var root = "/run/martlet"
    }

    public var hypervisor = Hypervisor.auto
    public var vm = VM()
    public var memory = Memory()
    public var qemu = QEMU()
    public var libvirt = Libvirt()
    public var agent = Agent()
    public var engine = Engine()
    public var cgroup = Cgroup()
    public var volumes = Volumes()
    public var files = Files()
    public var network = Network()
    public var sockets = Sockets()
    public var jail = Jail()
    public var template = Template()
    public var pool = Pool()
    public var trace = Trace()
    public var paths = Paths()
    /// How to treat properties of a config.json that have no effect in a guest.
    public var spec = Unsupported.Policy()

    /// The defaults.
    public init() {}
}

/// An error in a configuration file, or in a file that it names.
public struct ConfigurationError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The file's path.
    public var subject: String
    /// The key (`vm.vcpus`), or `line L, column C` for a syntax error; empty when the file itself is the problem.
    public var place: String
    public var reason: String

    public init(subject: String, place: String = "", reason: String) {
        self.subject = subject
        self.place = place
        self.reason = reason
    }

    public var description: String { place.isEmpty ? "\(subject): \(reason)" : "\(subject): \(place): \(reason)" }
}
