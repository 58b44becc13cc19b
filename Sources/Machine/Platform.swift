import LinuxSystem
import VMMControl

/// What a machine has of its CPU's architecture. Everything outside of the architecture's directory is the same on each.
///
/// An architecture is a directory beside `X86` with a type that conforms to this, an extension of `VCPU` (registers, exits of its
/// own, `prepareForPause`, `activity`), an extension of `MemoryMap` (addresses), headers in `CLinux`, and a line in `Platform`.
///
/// Belongs to the machine's thread.
protocol MachinePlatform: AnyObject {
    /// Capabilities of KVM that a machine needs here, besides those that it needs everywhere.
    static var requiredCapabilities: [(number: Int32, name: String)] { get }
    /// The interrupts of the MMIO slots, one each.
    static var slotInterrupts: ClosedRange<UInt32> { get }

    /// Makes the interrupt controllers of a VM that has its memory, and no vCPU yet.
    static func prepare(_ vm: VM) throws

    /// - Parameters:
    ///   - vcpus: of `vm`.
    ///   - maximumVCPUs: how many the guest can have while it runs.
    ///   - cpu: what the guest sees of the host's CPU.
    ///   - onEnd: the guest has turned the machine off, or reset it; called on a vCPU's thread, which stops by that.
    ///   - onEject: the guest has let go of a vCPU, given by its number; called on a vCPU's thread.
    init(
        _ vm: VM, _ vcpus: [VCPU], maximumVCPUs: Int, cpu: GuestCPU, onEnd: @escaping @Sendable (MachineEnd) -> Void,
        onEject: @escaping @Sendable (Int) -> Void) throws

    /// The devices that are not behind memory; an empty bus where there are none.
    var ports: Bus { get }

    /// Adds a serial port whose output goes to a socket, without waiting.
    func addSerialPort(output: SharedDescriptor) throws

    /// Loads the kernel and what describes the machine to it, and sets the vCPUs' registers for the start.
    ///
    /// - Parameter slots: the MMIO slots that the guest is told of.
    func prepareBoot(_ image: BootImage, slots: [MMIOSlot]) throws

    /// Reads the state of a paused machine: its own, and each vCPU's.
    ///
    /// - Throws: `MachineError` where it has a serial port, whose state is not kept.
    func save() throws -> (PlatformState, [VCPUState])

    /// Sets the state of a machine whose vCPUs have not run, and whose memory is as it was when the state was saved. The guest
    /// gets a new generation identifier, and is told so.
    ///
    /// - Throws: `MachineError` where the state does not fit this machine or this host.
    func restore(_ state: PlatformState, _ vcpus: [VCPUState]) throws

    /// vCPUs that the guest has, or is getting.
    var presentVCPUs: Int { get }

    /// Whether a vCPU, given by its number, is among `presentVCPUs`.
    func isPresent(vcpu index: Int) -> Bool

    /// Takes a vCPU that the machine gets while it runs, and sets its registers. Its number follows the last one's.
    func add(_ vcpu: VCPU) throws

    /// Tells the guest that it gets a vCPU.
    func insert(vcpu index: Int)

    /// Asks the guest to let go of a vCPU.
    func remove(vcpu index: Int)

    /// Tells the guest that the power button was pressed.
    func pressPowerButton()
}

#if arch(x86_64)
    typealias Platform = X86Platform
#else
    #error("the machine supports x86_64 only; see MachinePlatform")
#endif
