import Glibc
import LinuxSystem

/// A disk of a virtual machine: a file or block device of the host, taken as it is, whatever is in it.
public struct Disk: Sendable, Equatable, Codable {
    /// Absolute path.
    public var path: String
    public var readOnly: Bool
    /// The serial number by which the guest finds it: 20 bytes of ASCII at most.
    public var id: String

    public init(path: String, readOnly: Bool, id: String) {
        self.path = path
        self.readOnly = readOnly
        self.id = id
    }

    /// The file or device, open for as much as the disk allows.
    func open() throws(SystemError) -> OwnedDescriptor {
        try OwnedDescriptor.open(path, readOnly ? O_RDONLY : O_RDWR)
    }
}

/// Everything that a driver needs to start a virtual machine, as a value: it can be printed, compared and tested
/// without starting anything.
public struct VMConfiguration: Sendable, Equatable, Codable {
    /// The sandbox's id; names the VM to people and in process lists.
    public var name: String
    /// Virtual processors, 1–32.
    public var vcpus: Int
    /// Guest memory in MiB.
    public var memoryMiB: Int
    /// Absolute path of a vmlinux (ELF with the PVH note) or a bzImage.
    public var kernel: String
    /// Absolute path of the initramfs that holds the agent as /init; nil for a guest that needs none.
    public var initramfs: String?
    /// The kernel's command line, a word each.
    public var kernelArguments: [String]
    /// The guest's vsock context id.
    public var guestCID: UInt64
    /// An emulated serial port besides the ordinary console, for what the kernel says before that is there.
    public var debugConsole: Bool
    public var disks: [Disk]
    /// Whether the guest's memory may come in huge pages.
    public var hugePages = true
    /// Whether the machine has a file device, without which nothing can be shared with it.
    public var hasFiles: Bool

    public init(
        name: String, vcpus: Int, memoryMiB: Int, kernel: String, initramfs: String?, kernelArguments: [String],
        guestCID: UInt64 = 3, debugConsole: Bool = false, disks: [Disk] = [], hasFiles: Bool = true
    ) {
        self.name = name
        self.vcpus = vcpus
        self.memoryMiB = memoryMiB
        self.kernel = kernel
        self.initramfs = initramfs
        self.kernelArguments = kernelArguments
        self.guestCID = guestCID
        self.debugConsole = debugConsole
        self.disks = disks
        self.hasFiles = hasFiles
    }
}

/// Why a virtual machine is no more.
public enum VMEnd: Sendable, Equatable, CustomStringConvertible {
    /// The guest powered itself off, or the host asked for it.
    case poweredOff
    /// The guest's kernel panicked or reset the machine; the kernel's own words where it said any.
    case guestCrashed(String)
    /// A process that the VM needs has ended.
    case processEnded(name: String, how: String)
    /// A device found the guest's rings malformed.
    case deviceBroken(name: String, reason: String)
    /// The machine under the guest could not go on.
    case machineFailed(String)
    /// The host ended the VM, for this reason.
    case ended(String)

    public var description: String {
        switch self {
        case .poweredOff: "the guest powered off"
        case .guestCrashed(let words): "the guest crashed: \(words)"
        case .processEnded(let name, let how): "\(name) \(how)"
        case .deviceBroken(let name, let reason): "the guest broke its \(name) device: \(reason)"
        case .machineFailed(let reason): "the virtual machine failed: \(reason)"
        case .ended(let reason): reason
        }
    }
}

/// A virtual machine that could not be started or used.
public struct HypervisorError: Error, CustomStringConvertible, Sendable {
    public var description: String
    public init(_ description: String) { self.description = description }
}

/// A way to run virtual machines.
public protocol HypervisorDriver: Sendable {
    /// As in the configuration: `kvm`, `qemu`.
    var name: String { get }
    /// Starts the machine; returns as soon as its processes run, long before the guest is up.
    func launch(_ configuration: VMConfiguration) throws -> any VirtualMachine
}

/// A running virtual machine. Its end is reported once, whatever the cause; all its processes are gone then.
public protocol VirtualMachine: Sendable {
    /// The host's processes of this VM, by name.
    var processes: [(name: String, pid: Int32)] { get }
    /// Suspends until the agent has said that it listens, or the machine has ended, or `limit` is over.
    func agentReady(within limit: Duration) async throws
    /// Adds a file tree to the guest's share device.
    ///
    /// - Parameter tree: a directory, or a single regular file; the device gets a copy of the descriptor.
    func addShare(name: String, tree: Int32, readOnly: Bool) throws
    func removeShare(name: String) throws
    /// Adds a network interface to the running machine. The guest's agent finds it by its hardware address.
    ///
    /// - Parameters:
    ///   - hardwareAddress: 6 bytes.
    ///   - queues: a tap's descriptors, as `LinuxSystem.Tap` makes them, one for each pair of queues; the machine gets copies.
    func addNetwork(hardwareAddress: [UInt8], queues: [Int32]) throws
    /// Lets go of the tap of an interface that was added; to the guest it looks like a cable that is pulled.
    func removeNetwork(hardwareAddress: [UInt8]) throws
    /// Connects to a vsock port in the guest; `stream`, one end of a socket pair, becomes the connection's host end.
    /// Blocks until the guest answered; throws `VMMControl`'s errors.
    func connect(port: UInt32, stream: Int32, deadline: Duration) throws
    /// Ends the VM at once for `reason`, unless it has ended already.
    func kill(_ reason: VMEnd)
    /// Suspends until the VM has ended and all its processes are reaped.
    func end() async -> VMEnd
    /// The guest's console.
    var console: Console { get }
}

extension VirtualMachine {
    /// The last lines of the guest's console.
    public var consoleTail: [String] { console.tail(20) }
}
