import CLinux
import Glibc
public import LinuxSystem
public import VhostUser
public import Virtio

/// A virtual machine of KVM's: its memory, its interrupt controllers, and what connects guest and eventfds.
public final class VM: Sendable {
    let kvm: KVM
    let descriptor: SharedDescriptor
    public let map: MemoryMap
    public let memory: GuestMemory
    let memoryFile: SharedDescriptor
    /// What the guest writes is not in the memory's file.
    public let isPrivate: Bool
    /// The registers of the MMIO slots as the guest reads them, a page each. The guest can't write them as memory, so that only
    /// its writes leave the guest.
    let registers: Mapping

    /// The memory, for device processes that map it too.
    ///
    /// - Throws: `MachineError` where it is private.
    public func sharedMemory() throws(MachineError) -> [SharedMemoryRegion] {
        if isPrivate { throw MachineError("the machine's memory is not shared") }
        return map.banks.map { range in
            let base = memory.withBytes(at: range.address, count: Int(range.count)) { UInt(bitPattern: $0.baseAddress) }
            return SharedMemoryRegion(
                guestAddress: range.address, userAddress: UInt64(base ?? 0), size: range.count, file: memoryFile,
                offset: range.offset)
        }
    }

    /// Makes a machine with memory and interrupt controllers, and no vCPU yet.
    ///
    /// - Parameters:
    ///   - map: where memory is.
    ///   - memoryFile: a file of `map.fileSize` bytes; of private memory it may end behind any of the hotplug memory's.
    ///   - isPrivate: what the guest writes is not in the file.
    /// - Throws: `MachineError` where the file has another size; `SystemError` where KVM refuses.
    public init(_ kvm: KVM, map: MemoryMap, memoryFile: SharedDescriptor, isPrivate: Bool = false) throws {
        self.kvm = kvm
        self.map = map
        self.memoryFile = memoryFile
        self.isPrivate = isPrivate
        var facts = stat()
        try check("fstat", "guest memory", fstat(memoryFile.raw, &facts))
        // A saved one ends where the last of what was plugged does.
        let sizes = (isPrivate ? map.size : map.fileSize)...map.fileSize
        guard sizes.contains(UInt64(clamping: facts.st_size)) else {
            throw MachineError("the guest's memory file has \(facts.st_size) bytes, not \(map.fileSize)")
        }
        memory = try map.map(file: memoryFile.raw, isPrivate: isPrivate)
        descriptor = SharedDescriptor(
            OwnedDescriptor(
                owning: try retrying("KVM_CREATE_VM") {
                    martlet_ioctl_int(kvm.device.raw, UInt(MARTLET_KVM_CREATE_VM), 0)
                }))
        let registerBytes = Platform.slotInterrupts.count * Int(MemoryMap.virtioPage)
        let registerFile = try OwnedDescriptor.memory("registers", size: Int64(registerBytes))
        registers = try Mapping(file: registerFile.raw, count: registerBytes)
        // Memory before the interrupt controllers: each memory slot that is added later waits for those to settle.
        try addMemory(
            slot: 0, at: MemoryMap.virtioBase, registers.base, UInt64(registerBytes), flags: UInt32(KVM_MEM_READONLY))
        for (index, range) in map.ranges.enumerated() {
            let base = memory.withBytes(at: range.address, count: Int(range.count)) { $0.baseAddress }
            guard let base = base.flatMap({ $0 }) else {
                throw MachineError("memory at \(range.address) is not mapped")
            }
            try addMemory(slot: UInt32(index + 1), at: range.address, base, range.count)
        }
        try Platform.prepare(self)
    }

    /// KVM api.rst 4.35.
    func addMemory(
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

    // MARK: Eventfds

    /// Has a signal of `event` raise the interrupt `gsi`, edge-triggered (4.75).
    public func connect(_ event: Int32, toInterrupt gsi: UInt32) throws {
        try irqfd(event, gsi, flags: 0)
    }

    /// Takes back what `connect(_:toInterrupt:)` did.
    func disconnect(_ event: Int32, fromInterrupt gsi: UInt32) throws {
        try irqfd(event, gsi, flags: UInt32(KVM_IRQFD_FLAG_DEASSIGN))
    }

    private func irqfd(_ event: Int32, _ gsi: UInt32, flags: UInt32) throws {
        var request = kvm_irqfd()
        request.fd = UInt32(bitPattern: event)
        request.gsi = gsi
        request.flags = flags
        try call("KVM_IRQFD", MARTLET_KVM_IRQFD, &request)
    }

    /// Has a write of `value`, 4 bytes, at the guest-physical `address` signal `event` instead of leaving the guest (4.59).
    public func connect(write value: UInt32, at address: UInt64, to event: Int32) throws {
        try ioeventfd(value, address, event, flags: 0)
    }

    /// Takes back what `connect(write:at:to:)` did.
    func disconnect(write value: UInt32, at address: UInt64, from event: Int32) throws {
        try ioeventfd(value, address, event, flags: 1 << UInt32(kvm_ioeventfd_flag_nr_deassign))
    }

    private func ioeventfd(_ value: UInt32, _ address: UInt64, _ event: Int32, flags: UInt32) throws {
        var request = kvm_ioeventfd()
        request.datamatch = UInt64(value)
        request.addr = address
        request.len = 4
        request.fd = event
        request.flags = 1 << UInt32(kvm_ioeventfd_flag_nr_datamatch) | flags
        try call("KVM_IOEVENTFD", MARTLET_KVM_IOEVENTFD, &request)
    }

    // MARK: Requests to KVM

    /// Makes vCPU number `index` (4.7).
    func makeVCPU(_ index: Int) throws -> OwnedDescriptor {
        OwnedDescriptor(
            owning: try check(
                "KVM_CREATE_VCPU", "\(index)",
                martlet_ioctl_int(descriptor.raw, UInt(MARTLET_KVM_CREATE_VCPU), index)))
    }

    func call(_ name: String, _ request: UInt, _ argument: Int) throws(SystemError) {
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
