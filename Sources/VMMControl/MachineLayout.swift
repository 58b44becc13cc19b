/// A machine's memory and vCPUs.
public struct MachineLayout: Equatable, Sendable {
    /// What the guest has from the start on, bytes.
    public var memoryBytes: UInt64
    /// What it can get besides, bytes.
    public var hotplugBytes: UInt64
    /// What the guest writes is not in the memory's file, and no other process can map the guest's memory.
    public var isPrivate: Bool
    public var vcpus: UInt32
    /// How many vCPUs it can have while it runs.
    public var maximumVCPUs: UInt32
    public var cpu: GuestCPU

    public init(
        memoryBytes: UInt64, hotplugBytes: UInt64 = 0, isPrivate: Bool = false, vcpus: UInt32,
        maximumVCPUs: UInt32? = nil, cpu: GuestCPU = GuestCPU()
    ) {
        self.memoryBytes = memoryBytes
        self.hotplugBytes = hotplugBytes
        self.isPrivate = isPrivate
        self.vcpus = vcpus
        self.maximumVCPUs = maximumVCPUs ?? vcpus
        self.cpu = cpu
    }
}

extension MachineLayout {
    func encode(to packet: inout PacketWriter<some Sendable>) {
        packet.add(memoryBytes)
        packet.add(hotplugBytes)
        packet.add(isPrivate)
        packet.add(vcpus)
        packet.add(maximumVCPUs)
        cpu.encode(to: &packet)
    }

    init(from packet: inout PacketReader<some Sendable>) throws(FieldError) {
        memoryBytes = try packet.number("memoryBytes")
        hotplugBytes = try packet.number("hotplugBytes")
        isPrivate = try packet.flag("isPrivate")
        vcpus = try packet.number("vcpus")
        maximumVCPUs = try packet.number("maximumVCPUs")
        cpu = try GuestCPU(from: &packet)
    }
}
