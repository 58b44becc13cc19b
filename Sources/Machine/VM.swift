import CLinux
import Glibc
public import LinuxSystem
public import VhostUser
public import Virtio

/// A virtual machine of KVM's: its memory, its interrupt controllers, and the wires to eventfds.
public final class VM: Sendable {
    let kvm: KVM
    let descriptor: SharedDescriptor
    public let map: MemoryMap
    public let memory: GuestMemory
    private let memoryFile: SharedDescriptor
    /// What the guest reads at the devices' registers, `MemoryMap.virtioPages` pages: memory that it can't write, so that only
    /// writes leave the guest.
    let registers: Mapping

    /// The memory, for device processes that map it too.
    public var sharedMemory: [SharedMemoryRegion] {
        map.ranges.map { range in
            let base = memory.withBytes(at: range.address, count: Int(range.count)) { UInt(bitPattern: $0.baseAddress) }
            return SharedMemoryRegion(
                guestAddress: range.address, userAddress: UInt64(base ?? 0), size: range.count, file: memoryFile,
                offset: range.offset)
        }
    }

    /// Makes a machine with memory and interrupt controllers (two 8259, an I/O APIC, a local APIC for each processor), no
    /// processors yet.
    ///
    /// - Parameters:
    ///   - memoryFile: a memory file of `map.size` bytes.
    public init(_ kvm: KVM, map: MemoryMap, memoryFile: SharedDescriptor) throws {
        self.kvm = kvm
        self.map = map
        self.memoryFile = memoryFile
        var facts = stat()
        try check("fstat", "guest memory", fstat(memoryFile.raw, &facts))
        guard UInt64(clamping: facts.st_size) == map.size else {
            throw MachineError("the guest's memory file has \(facts.st_size) bytes, not \(map.size)")
        }
        memory = try map.map(file: memoryFile.raw)
        descriptor = SharedDescriptor(
            OwnedDescriptor(
                owning: try retrying("KVM_CREATE_VM") {
                    martlet_ioctl_int(kvm.device.raw, UInt(MARTLET_KVM_CREATE_VM), 0)
                }))
        let registerBytes = MemoryMap.virtioPages * Int(MemoryMap.virtioPage)
        let registerFile = try OwnedDescriptor.memory("registers", size: Int64(registerBytes))
        registers = try Mapping(file: registerFile.raw, count: registerBytes)
        // Memory before the interrupt controllers: each slot that is added later waits for those to settle.
        try addMemory(
            slot: 0, at: MemoryMap.virtioBase, registers.base, UInt64(registerBytes), flags: UInt32(KVM_MEM_READONLY))
        for (index, range) in map.ranges.enumerated() {
            let base = memory.withBytes(at: range.address, count: Int(range.count)) { $0.baseAddress }
            guard let base = base.flatMap({ $0 }) else {
                throw MachineError("memory at \(range.address) is not mapped")
            }
            try addMemory(slot: UInt32(index + 1), at: range.address, base, range.count)
        }
        try call("KVM_SET_TSS_ADDR", MARTLET_KVM_SET_TSS_ADDR, Int(MemoryMap.taskState))
        var identityMap = MemoryMap.identityMap
        try call("KVM_SET_IDENTITY_MAP_ADDR", MARTLET_KVM_SET_IDENTITY_MAP_ADDR, &identityMap)
        try call("KVM_CREATE_IRQCHIP", MARTLET_KVM_CREATE_IRQCHIP, 0)
    }

    /// KVM api.rst 4.35.
    private func addMemory(
        slot: UInt32, at address: UInt64, _ base: UnsafeMutableRawPointer, _ count: UInt64, flags: UInt32 = 0
    ) throws {
        var region = kvm_userspace_memory_region()
        region.slot = slot
        region.flags = flags
        region.guest_phys_addr = address
        region.memory_size = count
        region.userspace_addr = UInt64(UInt(bitPattern: base))
        try call("KVM_SET_USER_MEMORY_REGION", MARTLET_KVM_SET_USER_MEMORY_REGION, &region)
    }

    /// Has a signal of `event` raise the interrupt line `gsi`, from edge to edge (4.75).
    public func connect(_ event: Int32, toInterrupt gsi: UInt32) throws {
        var wire = kvm_irqfd()
        wire.fd = UInt32(bitPattern: event)
        wire.gsi = gsi
        try call("KVM_IRQFD", MARTLET_KVM_IRQFD, &wire)
    }

    /// Has a write of `value`, 4 bytes, at the guest-physical `address` signal `event` instead of leaving the guest (4.59).
    public func connect(write value: UInt32, at address: UInt64, to event: Int32) throws {
        var wire = kvm_ioeventfd()
        wire.datamatch = UInt64(value)
        wire.addr = address
        wire.len = 4
        wire.fd = event
        wire.flags = 1 << UInt32(kvm_ioeventfd_flag_nr_datamatch)
        try call("KVM_IOEVENTFD", MARTLET_KVM_IOEVENTFD, &wire)
    }

    /// Makes processor number `index` (4.7).
    func makeVCPU(_ index: Int) throws -> OwnedDescriptor {
        OwnedDescriptor(
            owning: try check(
                "KVM_CREATE_VCPU", "\(index)",
                martlet_ioctl_int(descriptor.raw, UInt(MARTLET_KVM_CREATE_VCPU), index)))
    }

    private func call(_ name: String, _ request: UInt, _ argument: Int) throws(SystemError) {
        try check(name, "", martlet_ioctl_int(descriptor.raw, request, argument))
    }

    func call<T>(_ name: String, _ request: UInt, _ argument: inout T) throws(SystemError) {
        try check(
            name, "",
            withUnsafeMutablePointer(to: &argument) {
                martlet_ioctl_pointer(descriptor.raw, request, UnsafeMutableRawPointer($0))
            })
    }
}
