public import OCISpec

/// What a host's administrator decides: `/etc/martlet/martlet.toml` and its drop-ins, typed and checked.
/// docs/configuration.md lists every key.
public struct Configuration: Sendable, Equatable, Codable {
    public enum Hypervisor: String, Sendable, CaseIterable, Codable { case auto, kvm, qemu }
    public enum Accelerator: String, Sendable, CaseIterable, Codable { case auto, kvm, tcg }

    /// The virtual machine that a pod gets.
    public struct VM: Sendable, Equatable, Codable {
        public var vcpus = 1
        /// Of a pod that nobody has set a limit for.
        public var memoryMiB = 512
        /// What the guest needs beside its containers: added to their limit.
        public var overheadMiB = 64
        /// What the host's processes of a pod need beside the guest's memory: taken from the limit of the pod's control group.
        public var hostMiB = 40
        /// Absolute path; nil: the one that comes with Martlet (see `GuestImage`).
        public var kernel: String?
        /// Absolute path; nil: the one that comes with Martlet.
        public var initramfs: String?
        /// Words appended to the guest kernel's command line.
        public var kernelArguments: [String] = []
        /// The kernel's earliest words on an emulated serial port, which costs time.
        public var debugConsole = false
        /// Guest memory in huge pages: a quicker start, for memory that is taken 2 MiB at a time.
        public var hugePages = true
    }

    public struct QEMU: Sendable, Equatable, Codable {
        /// A path, or a name to be found in PATH.
        public var path = "qemu-system-x86_64"
        public var accelerator = Accelerator.auto
        /// The host's kernel moves the frames of network interfaces (/dev/vhost-net), and not QEMU.
        public var vhostNet = false
    }

    /// How long the host waits for the agent.
    public struct Agent: Sendable, Equatable, Codable {
        /// From the VM's start until the agent answers.
        public var startTimeout = Duration.seconds(30)
        /// For one request, but waiting for a process.
        public var requestTimeout = Duration.seconds(30)
        public var heartbeatInterval = Duration.milliseconds(500)
        /// An agent that has not answered for so long is taken for dead, and the VM ends.
        public var heartbeatTimeout = Duration.milliseconds(4000)
    }

    /// Where the host's processes of a pod live.
    public struct Cgroup: Sendable, Equatable, Codable {
        /// Absolute; each pod gets a group of its own below it. nil: the group that the bundle names, or where the engine is
        /// when it names none.
        public var parent: String?
    }

    /// What an engine may change with a container.
    public struct Engine: Sendable, Equatable, Codable {
        /// Of the runtime options that an engine sends: `config_path`.
        public var options: [String] = []
        /// Keys that an annotation `io.martlet.KEY` may change.
        public var annotations: [String] = []
    }

    /// Volumes of pods.
    public struct Volumes: Sendable, Equatable, Codable {
        /// In bytes: a ConfigMap, Secret, projected or downward-API volume up to this size is copied into the guest's memory.
        public var copyLimit = 8 << 20
    }

    public struct Paths: Sendable, Equatable, Codable {
        /// Where state of pods is kept while they run; `--root` goes before it.
        public var root = "/run/martlet"
    }

    public var hypervisor = Hypervisor.auto
    public var vm = VM()
    public var qemu = QEMU()
    public var agent = Agent()
    public var engine = Engine()
    public var cgroup = Cgroup()
    public var volumes = Volumes()
    public var paths = Paths()
    /// What becomes of properties of a config.json that can't act in a guest.
    public var spec = Unsupported.Policy()

    /// The defaults, which hold where there is no file.
    public init() {}
}

/// What is wrong with a configuration file, or with what it names.
public struct ConfigurationError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The file's path.
    public var subject: String
    /// The key (`vm.vcpus`), or `line L, column C` where the text can't be read; empty where it is the file itself.
    public var place: String
    public var reason: String

    public init(subject: String, place: String = "", reason: String) {
        self.subject = subject
        self.place = place
        self.reason = reason
    }

    public var description: String { place.isEmpty ? "\(subject): \(reason)" : "\(subject): \(place): \(reason)" }
}
