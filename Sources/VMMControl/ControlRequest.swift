/// What the pod's server asks of one of its processes: `martlet-vmm` or `martlet-device`.
///
/// `Descriptor` is a number (`Int32`) where a request is sent, with a copy of what it names, and an owner
/// (`SharedDescriptor`) where it is received.
public enum ControlRequest<Descriptor: Sendable>: Sendable {
    // MARK: To a device process

    /// Serve a vsock device to the machine at the other end of `vhostUser`.
    case startVsock(vhostUser: Descriptor, guestCID: UInt64)
    /// Serve a file device; `memoryLimit` is in bytes.
    case startFiles(
        vhostUser: Descriptor, tag: String, memoryLimit: UInt64, allowsDevices: Bool)
    /// Serve a file device to a machine whose memory is not shared, through a `FileRelay`.
    case startRelayedFiles(relay: RelayDescriptors<Descriptor>, tag: String, memoryLimit: UInt64, allowsDevices: Bool)
    /// Serve a disk; `id` is its serial number, `queues` how many it may have. The reply is `ControlReply.disk`.
    case startBlock(
        vhostUser: Descriptor, files: DiskFiles<Descriptor>, readOnly: Bool, id: String, queues: UInt8)
    /// Add a directory or a file to the file device's root.
    case addShare(name: String, tree: Descriptor, readOnly: Bool)
    case removeShare(name: String)
    /// Write what the guest knows of the file device to `file`, from its beginning on, while the machine is paused. The reply is
    /// `ControlReply.saved`.
    case saveFiles(file: Descriptor)
    /// Know what another process wrote to `file`: after the same shares were added, before the guest's first request.
    case restoreFiles(file: Descriptor)
    /// Connect `stream` to a vsock port of the guest, which has `timeout` for its answer. `martlet-vmm` takes it too.
    case connect(port: UInt32, stream: Descriptor, timeout: Duration)
    /// Tell what has been counted. Each process takes it; the reply is `ControlReply.statistics`.
    case statistics

    // MARK: To the machine's process

    /// Make the machine; the first request. `kvm` is /dev/kvm, `memory` a file of all memory that the layout has.
    case machine(kvm: Descriptor, memory: Descriptor, layout: MachineLayout)
    /// Map a file as the guest's read-only root image (virtio-pmem).
    case addRootImage(file: Descriptor)
    /// Add a console that prints to the socket `output`.
    case addConsole(output: Descriptor, kind: ConsoleKind)
    /// Add a source of random numbers.
    case addEntropy
    /// Add the memory balloon. `reportsFreePages`: the guest may report free memory, which goes back to the host.
    case addBalloon(reportsFreePages: Bool)
    /// Have the guest give up so much of its memory, and take back what it has given up beyond that. It does so in its own time.
    case setBalloon(bytes: UInt64)
    /// Add the device by which the guest gets the hotplug memory of the machine's layout.
    case addMemory
    /// Have the guest use so much of the hotplug memory. It does so in its own time.
    case setMemory(bytes: UInt64)
    /// Give the guest vCPUs, or ask it to let go of the last ones, until it has so many. It does so in its own time.
    case setVCPUs(count: UInt32)
    /// Add the vsock device, which the machine's process serves itself.
    case addVsock(guestCID: UInt64)
    /// Add the file device that a process at the other end of `vhostUser` serves.
    case addFiles(vhostUser: Descriptor, tag: String)
    /// Add the file device that another process serves through a `FileRelay`.
    case addRelayedFiles(relay: RelayDescriptors<Descriptor>, tag: String)
    /// Add a disk, to the running machine too; as `startBlock`.
    case addBlock(files: DiskFiles<Descriptor>, readOnly: Bool, id: String, queues: UInt8)
    /// Take a disk away from the running machine. The reply comes when its slot is free.
    case removeBlock(id: String)
    /// Start the guest. The reply is `ControlReply.booted`.
    case boot(kernel: Descriptor, initramfs: Descriptor?, commandLine: String)
    /// Start the machine in the state that is in `state`, a file; memory and devices are as they were when it was saved. The reply
    /// is `ControlReply.booted`. `resetsConnections`: the guest has connections to the host, which have ended; the agent is
    /// reported as ready when the guest knows that.
    case restore(state: Descriptor, resetsConnections: Bool)
    /// Write the paused machine's state and its memory, each to a file from its beginning on; `memory` has the memory's size and
    /// only holes. The reply is `ControlReply.saved`.
    case save(state: Descriptor, memory: Descriptor)
    /// Press the power button.
    case pressPowerButton
    /// Stop all vCPUs. The reply comes when none runs any more.
    case pause
    /// Let the vCPUs of a paused machine go on.
    case resume
    /// Plug a network interface into the running machine, or give one to a machine that is going to be restored with it. `queues`
    /// are a tap's, `hardwareAddress` has 6 bytes.
    case addNetwork(queues: [Descriptor], hardwareAddress: [UInt8])
    /// Unplug a network interface. The reply comes when its slot is free.
    case removeNetwork(hardwareAddress: [UInt8])
    /// Set a network interface's link up or down, of which the guest gets a configuration change.
    case setNetworkLink(hardwareAddress: [UInt8], isUp: Bool)
}

/// What a disk is made of: raw files or block devices, one after the other.
public struct DiskFiles<Descriptor: Sendable>: Sendable {
    /// How many a disk may have: as many as one message has descriptors for.
    public static var maximumCount: Int { 250 }

    public var files: [Descriptor]
    /// How many bytes of each are the disk's; 0: all that it has.
    public var bytes: [UInt64]

    public init(files: [Descriptor], bytes: [UInt64]) {
        precondition(files.count == bytes.count, "a size for each file")
        (self.files, self.bytes) = (files, bytes)
    }

    /// A single file, with all that it has.
    public init(_ file: Descriptor) { (files, bytes) = ([file], [0]) }
}

/// What both ends of a `FileRelay` get: a memory file, and an eventfd for each direction.
public struct RelayDescriptors<Descriptor: Sendable>: Sendable {
    public var area: Descriptor
    public var request: Descriptor
    public var reply: Descriptor

    /// Bytes of the memory file, as much as a relay needs and more. What is not used takes no memory.
    public static var areaSize: Int64 { 4 << 20 }

    public init(area: Descriptor, request: Descriptor, reply: Descriptor) {
        self.area = area
        self.request = request
        self.reply = reply
    }
}

/// What a console is to the guest.
public enum ConsoleKind: UInt8, Sendable {
    /// A virtio console, `hvc0`.
    case virtio
    /// A 16550 serial port, `ttyS0`.
    case serial
}

/// The requests' numbers in a packet.
enum ControlRequestKind: UInt16, CaseIterable, Sendable {
    case startVsock = 1
    case startFiles, startBlock, addShare, removeShare, connect, startRelayedFiles, saveFiles, restoreFiles
    case statistics
    case machine = 32
    case addConsole, addEntropy, addVsock, addFiles, addBlock, boot, pressPowerButton, pause, resume, addNetwork
    case removeNetwork, setNetworkLink, restore, save, addRelayedFiles, addRootImage, removeBlock
    case addBalloon, setBalloon, addMemory, setMemory, setVCPUs
}

extension ControlRequest {
    var kind: ControlRequestKind {
        switch self {
        case .startVsock: .startVsock
        case .startFiles: .startFiles
        case .startBlock: .startBlock
        case .startRelayedFiles: .startRelayedFiles
        case .addShare: .addShare
        case .removeShare: .removeShare
        case .saveFiles: .saveFiles
        case .restoreFiles: .restoreFiles
        case .connect: .connect
        case .statistics: .statistics
        case .machine: .machine
        case .addRootImage: .addRootImage
        case .addConsole: .addConsole
        case .addEntropy: .addEntropy
        case .addBalloon: .addBalloon
        case .addMemory: .addMemory
        case .setMemory: .setMemory
        case .setVCPUs: .setVCPUs
        case .setBalloon: .setBalloon
        case .addVsock: .addVsock
        case .addFiles: .addFiles
        case .addRelayedFiles: .addRelayedFiles
        case .addBlock: .addBlock
        case .removeBlock: .removeBlock
        case .boot: .boot
        case .pressPowerButton: .pressPowerButton
        case .pause: .pause
        case .resume: .resume
        case .addNetwork: .addNetwork
        case .removeNetwork: .removeNetwork
        case .setNetworkLink: .setNetworkLink
        case .restore: .restore
        case .save: .save
        }
    }

    /// The request's name, for messages.
    public var name: String { "\(kind)" }
}
