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
    /// The guest sees the CPU's virtualization.
    public var nested: Bool

    public init(
        memoryBytes: UInt64, hotplugBytes: UInt64 = 0, isPrivate: Bool = false, vcpus: UInt32,
        maximumVCPUs: UInt32? = nil, nested: Bool = false
    ) {
        self.memoryBytes = memoryBytes
        self.hotplugBytes = hotplugBytes
        self.isPrivate = isPrivate
        self.vcpus = vcpus
        self.maximumVCPUs = maximumVCPUs ?? vcpus
        self.nested = nested
    }
}

extension MachineLayout {
    func encode(to packet: inout PacketWriter<some Sendable>) {
        packet.add(memoryBytes)
        packet.add(hotplugBytes)
        packet.add(isPrivate)
        packet.add(vcpus)
        packet.add(maximumVCPUs)
        packet.add(nested)
    }

    init(from packet: inout PacketReader<some Sendable>) throws(FieldError) {
        memoryBytes = try packet.number("memoryBytes")
        hotplugBytes = try packet.number("hotplugBytes")
        isPrivate = try packet.flag("isPrivate")
        vcpus = try packet.number("vcpus")
        maximumVCPUs = try packet.number("maximumVCPUs")
        nested = try packet.flag("nested")
    }
}
