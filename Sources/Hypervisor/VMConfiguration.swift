import Jail
public import VMMControl

/// Everything that a driver needs to start a virtual machine, as a value: it can be printed, compared and tested
/// without starting anything.
public struct VMConfiguration: Sendable, Equatable, Codable {
    /// The sandbox's id; names the VM to people and in process lists.
    public var name: String
    /// Virtual CPUs, 1–32.
    public var vcpus: Int
    /// How many it can have while it runs; no more than `vcpus`: none can be added.
    public var maximumVCPUs: Int
    /// Guest memory in MiB.
    public var memoryMiB: Int
    /// How much it can have while it runs, MiB; no more than `memoryMiB`: none can be added.
    public var maximumMemoryMiB: Int
    /// Absolute path of a vmlinux (ELF with the PVH note) or a bzImage.
    public var kernel: String
    /// Absolute path of the initramfs that holds the agent as /init; nil for a guest that needs none.
    public var initramfs: String?
    /// Absolute path of the read-only root image that holds the agent as /init, mapped in place of the initramfs; nil: none.
    public var rootImage: String?
    /// The kernel's command line, one argument each.
    public var kernelArguments: [String]
    /// The guest's vsock context id.
    public var guestCID: UInt64
    /// An emulated serial port besides the ordinary console, for what the kernel says before that is there.
    public var debugConsole: Bool
    /// Whether the guest's memory may come in huge pages.
    public var hugePages = true
    /// Whether memory that is free in the guest goes back to the host.
    public var reportsFreePages = true
    /// What the guest sees of the host's CPU.
    public var cpu = GuestCPU()
    /// Whether the guest may make device nodes on what the file device serves.
    public var allowsDeviceNodes = false
    /// Whether the machine has a file device, without which nothing can be shared with it.
    public var hasFiles: Bool
    /// A machine like this one, saved when its agent was ready, to start from; nil: the machine boots. The built-in VMM only.
    public var template: MachineTemplate?
    /// Whom the machine's processes run as: of the pod alone.
    public var user = JailPlan.nobody
    /// Directories of the pod's cgroup on the host, one of each hierarchy. Processes that the pod's server starts are in there already;
    /// libvirt's QEMU, which libvirtd starts, is moved there.
    public var cgroups: [String] = []

    public init(
        name: String, vcpus: Int, memoryMiB: Int, kernel: String, initramfs: String?, kernelArguments: [String],
        guestCID: UInt64 = 3, debugConsole: Bool = false, hasFiles: Bool = true
    ) {
        self.name = name
        (self.vcpus, maximumVCPUs) = (vcpus, vcpus)
        (self.memoryMiB, maximumMemoryMiB) = (memoryMiB, memoryMiB)
        self.kernel = kernel
        self.initramfs = initramfs
        self.kernelArguments = kernelArguments
        self.guestCID = guestCID
        self.debugConsole = debugConsole
        self.hasFiles = hasFiles
    }

    /// Memory comes and goes in such pieces, MiB.
    public static let memoryBlockMiB = 2
    /// What the guest's kernel adds at a time: the hotplug memory is a multiple of it, MiB.
    private static let hotplugUnitMiB = 128
    /// What the built-in VMM's machines can have.
    private static let mostHotplugMiB = 64 << 10

    /// Memory that the guest can get while it runs, MiB.
    package var hotplugMiB: Int { Self.hotplugMiB(memoryMiB, of: maximumMemoryMiB) }

    /// As `hotplugMiB`, of a machine with so much memory of a maximum.
    package static func hotplugMiB(_ memoryMiB: Int, of maximum: Int) -> Int {
        min(max(0, maximum - memoryMiB), mostHotplugMiB) / hotplugUnitMiB * hotplugUnitMiB
    }

    /// As `hotplugMiB`, bytes.
    var hotplugBytes: UInt64 { UInt64(hotplugMiB) << 20 }

    /// Most memory of the host that the guest may make the file server use, bytes: an eighth of its own, and 128 MiB at least, in
    /// which it knows a quarter of a million files.
    package var filesMemoryLimit: UInt64 { UInt64(max(128, memoryMiB / 8)) << 20 }
}
