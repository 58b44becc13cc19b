import LinuxSystem
import VMMControl

/// As a machine's state is read: what is wrong with it is a `MachineError`.
typealias StateReader = LinuxSystem.StateReader<MachineError>

/// The state of a paused machine, without its memory: what `VMM.save` reads and `VMM.restore` sets.
///
/// A file of it begins with a magic number and the format's version. Sections follow, each with its number and its length in bytes,
/// in this order: the machine, the platform, one for each vCPU, one for each MMIO slot that has a device.
public struct MachineSnapshot: Sendable, Equatable {
    /// "MRTLSNAP", little-endian.
    static let magic: UInt64 = 0x5041_4e53_4c54_524d
    /// Changes with every change of what a section has.
    static let version: UInt32 = 4
    /// A state has fewer bytes than this: 32 vCPUs and the devices of all slots with 64 KiB each, and a margin.
    public static let maximumSize = 4 << 20

    /// Bytes of memory.
    var memoryBytes: UInt64
    /// What the guest sees of the host's CPU.
    var cpu: GuestCPU
    /// Slots without a device that the guest knows, in the order in which they are taken.
    var freeSlots: [Int]
    var platform: PlatformState
    var vcpus: [VCPUState]
    var slots: [SlotState]

    private enum Section: UInt32 {
        case machine = 1
        case platform, vcpu, slot
    }

    /// A network interface of the machine.
    public struct Network: Sendable, Equatable {
        public var slot: Int
        /// 6 bytes.
        public var hardwareAddress: [UInt8]
    }

    /// The machine's network interfaces, in the order of their slots.
    public var networks: [Network] {
        slots.filter { $0.deviceID == VMM.networkID }.map {
            Network(slot: $0.index, hardwareAddress: Array($0.configuration.prefix(6)))
        }
    }

    /// A disk of the machine.
    public struct Disk: Sendable, Equatable {
        public var slot: Int
        /// Its serial number in the guest (`BlockBackend.savedState`).
        public var serial: [UInt8]
        /// Its configuration space, in which its size is.
        public var configuration: [UInt8]
    }

    /// The machine's disks, in the order of their slots.
    public var disks: [Disk] {
        slots.filter { $0.deviceID == VMM.blockID }.map {
            Disk(slot: $0.index, serial: $0.deviceState, configuration: $0.configuration)
        }
    }

    // MARK: Coding

    public func encoded() -> [UInt8] {
        var file = StateWriter()
        file.add(Self.magic)
        file.add(Self.version)
        file.add(section: Section.machine) { section in
            section.add(memoryBytes)
            section.add(cpu.profile.code)
            section.add(cpu.nested)
            section.add(UInt32(vcpus.count))
            section.add(UInt32(slots.count))
            section.add(each: freeSlots) { $0.add(UInt32($1)) }
        }
        file.add(section: Section.platform) { platform.encode(to: &$0) }
        for vcpu in vcpus { file.add(section: Section.vcpu) { vcpu.encode(to: &$0) } }
        for slot in slots { file.add(section: Section.slot) { slot.encode(to: &$0) } }
        return file.bytes
    }

    /// - Throws: `MachineError` with the section and the field that are wrong.
    public init(_ bytes: [UInt8]) throws(MachineError) {
        var file = StateReader("machine state", bytes[...])
        guard try file.number("magic") == Self.magic else { throw file.error("not the state of a machine") }
        let version: UInt32 = try file.number("version")
        guard version == Self.version else { throw file.error("version \(version), not \(Self.version)") }
        var machine = try file.section(Section.machine)
        memoryBytes = try machine.number("memory")
        let code: UInt32 = try machine.number("CPU profile")
        guard let profile = GuestCPU.Profile(code: code) else { throw machine.error("CPU profile \(code)") }
        cpu = GuestCPU(profile: profile, nested: try machine.flag("nested"))
        let vcpuCount: UInt32 = try machine.number("vCPUs")
        guard VMM.vcpuCounts.contains(Int(vcpuCount)) else { throw machine.error("\(vcpuCount) vCPUs") }
        let slotCount: UInt32 = try machine.number("slots")
        let most = Platform.slotInterrupts.count
        guard slotCount <= most else { throw machine.error("\(slotCount) slots") }
        freeSlots = try machine.each("free slots", atMost: most) { machine throws(MachineError) in
            try SlotState.index(&machine)
        }
        try machine.finish()
        var section = try file.section(Section.platform)
        platform = try PlatformState(&section)
        try section.finish()
        vcpus = []
        for _ in 0..<vcpuCount {
            var section = try file.section(Section.vcpu)
            vcpus.append(try VCPUState(&section))
            try section.finish()
        }
        slots = []
        for _ in 0..<slotCount {
            var section = try file.section(Section.slot)
            slots.append(try SlotState(&section))
            try section.finish()
        }
        try file.finish()
        let indices = slots.map(\.index) + freeSlots
        guard Set(indices).count == indices.count else { throw file.error("a slot stands there twice") }
    }

    init(
        memoryBytes: UInt64, cpu: GuestCPU, freeSlots: [Int], platform: PlatformState, vcpus: [VCPUState],
        slots: [SlotState]
    ) {
        self.memoryBytes = memoryBytes
        self.cpu = cpu
        self.freeSlots = freeSlots
        self.platform = platform
        self.vcpus = vcpus
        self.slots = slots
    }
}
