public import LinuxSystem
public import VMMControl

/// A virtual machine that could not be started or used.
public struct HypervisorError: Error, CustomStringConvertible, Sendable {
    public var description: String
    public init(_ description: String) { self.description = description }
}

/// A way to run virtual machines.
public protocol HypervisorDriver: Sendable {
    /// As in the configuration: `kvm`, `qemu`.
    var name: String { get }
    /// Starts the machine; returns as soon as its processes run, long before the guest is up. Blocks for some
    /// milliseconds.
    func launch(_ configuration: VMConfiguration) throws -> any VirtualMachine
    /// Starts a machine in the state of `configuration.template`, which a machine with containers was saved to, and returns as
    /// `launch` does.
    ///
    /// - Parameter devices: what the saved machine had.
    /// - Throws: `HypervisorError` where the driver can't restore machines.
    func restore(_ configuration: VMConfiguration, _ devices: RestoredDevices) throws -> any VirtualMachine
}

extension HypervisorDriver {
    public func restore(_ configuration: VMConfiguration, _ devices: RestoredDevices) throws -> any VirtualMachine {
        throw HypervisorError("\(name) can't restore a machine: only the built-in VMM (hypervisor = \"kvm\") can")
    }
}

/// What a machine that was saved with containers had of the host, as it is now.
public struct RestoredDevices: Sendable {
    public struct Share: Sendable {
        /// As it was.
        public var name: String
        public var tree: SharedDescriptor
        public var isReadOnly: Bool

        public init(name: String, tree: SharedDescriptor, isReadOnly: Bool) {
            (self.name, self.tree, self.isReadOnly) = (name, tree, isReadOnly)
        }
    }

    public struct Network: Sendable {
        /// As it was; 6 bytes.
        public var hardwareAddress: [UInt8]
        /// A tap's, as many as there were.
        public var queues: [SharedDescriptor]

        public init(hardwareAddress: [UInt8], queues: [SharedDescriptor]) {
            (self.hardwareAddress, self.queues) = (hardwareAddress, queues)
        }
    }

    public var shares: [Share]
    public var disks: [Disk]
    public var networks: [Network]

    public init(shares: [Share], disks: [Disk] = [], networks: [Network]) {
        (self.shares, self.disks, self.networks) = (shares, disks, networks)
    }
}

/// Where a virtual machine is in its life. It goes forward only, but between running and paused.
public enum MachineState: Sendable, Equatable, CustomStringConvertible {
    /// Its processes are being started; the guest has not run yet.
    case created
    case running
    /// Its vCPUs stand still. Devices and the host's processes go on.
    case paused
    /// The first sign of its end has come; its processes are being ended.
    case stopped
    /// All its processes are gone.
    case ended(VMEnd)

    public var description: String {
        switch self {
        case .created: "created"
        case .running: "running"
        case .paused: "paused"
        case .stopped: "stopped"
        case .ended(let end): "ended: \(end)"
        }
    }
}

/// A virtual machine. Its end is reported once, whatever the cause; all its processes are gone then.
///
/// Calls that are not `async` may block, for the guest's answer too; they are not for an actor's thread.
public protocol VirtualMachine: Sendable {
    var state: MachineState { get }
    /// The host's processes of this VM, by name, those of disks that it has now among them.
    var processes: [(name: String, pid: Int32)] { get }
    /// Suspends until it is time to connect to the agent, or the machine has ended, or `limit` is over.
    ///
    /// On the built-in VMM that is when the agent has rung its doorbell; on QEMU when the guest has started the vsock
    /// device, after which a connection is refused at once until the agent listens.
    func agentReady(within limit: Duration) async throws
    /// Stops the vCPUs; returns when none runs.
    ///
    /// - Throws: `HypervisorError` when the machine is not running.
    func pause() throws
    /// Lets the vCPUs of a paused machine go on.
    ///
    /// - Throws: `HypervisorError` when the machine is not paused.
    func resume() throws
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
    /// Takes an interface that was added away from the guest, and gives its slot back. Waits a few seconds for the guest to
    /// let go of it; the slot of a guest that does not stays taken until it does.
    func removeNetwork(hardwareAddress: [UInt8]) throws
    /// Adds a disk to the running machine. The guest's agent finds it by its serial number.
    ///
    /// - Throws: `HypervisorError` where something else uses its files, or all slots are taken.
    func addDisk(_ disk: Disk) throws
    /// Takes a disk away, and gives its slot back and closes its files. The guest has let go of it before.
    ///
    /// - Throws: `HypervisorError` where the guest has not: the disk stays then.
    func removeDisk(id: String) throws
    /// Connects to a vsock port in the guest; `stream`, one end of a socket pair, becomes the connection's host end.
    /// Blocks until the guest answered; throws `VMMControl`'s errors.
    func connect(port: UInt32, stream: Int32, deadline: Duration) throws
    /// Writes a paused machine to a directory that has nothing of it. What a failure leaves there is the caller's.
    ///
    /// - Parameter withShares: the file server's state too.
    /// - Throws: `HypervisorError` where the driver can't save machines.
    func save(to directory: MachineTemplate, withShares: Bool) throws
    /// Has the guest give up so much of its memory to the host, and take back what it has given up beyond that. Returns before it has.
    ///
    /// - Parameter bytes: 0: nothing; the guest gives up no more than it can do without.
    func setBalloon(bytes: UInt64) throws
    /// What the guest has given up, and what it tells of its memory.
    func balloon(timeout: Duration) throws -> ProcessStatistics.Balloon
    /// Has the guest use so much of the memory that it can get while it runs (`VMConfiguration.hotplugMiB`), and let go of what it uses
    /// beyond that. Returns before it has. What the guest can't do without stays with it.
    ///
    /// - Parameter bytes: a multiple of `VMConfiguration.memoryBlockMiB`.
    /// - Throws: `HypervisorError` where the machine has not so much.
    func setMemory(bytes: UInt64) throws
    /// Gives the guest vCPUs, or asks it to let go of the last ones. Returns before it uses them, or has let go.
    ///
    /// - Parameter count: from one to `VMConfiguration.maximumVCPUs`.
    func setVCPUs(_ count: Int) throws
    /// What the guest has of the vCPUs and the memory that come and go.
    func hotplug(timeout: Duration) throws -> ProcessStatistics.Hotplug
    /// What its processes have counted, of those that answer within `timeout`; none of a process that does not count.
    func statistics(timeout: Duration) -> [ProcessStatistics]
    /// Ends the VM at once for `reason`, unless it has ended already.
    func kill(_ reason: VMEnd)
    /// Suspends until the VM has ended and all its processes are reaped.
    func end() async -> VMEnd
    /// The guest's console, for diagnosis.
    var console: Console { get }
}

extension VirtualMachine {
    public func statistics(timeout: Duration) -> [ProcessStatistics] { [] }

    public func save(to directory: MachineTemplate, withShares: Bool) throws {
        throw HypervisorError("the driver can't save a machine: only the built-in VMM (hypervisor = \"kvm\") can")
    }

    /// The last lines of the guest's console.
    public var consoleTail: [String] { console.tail(20) }
}
