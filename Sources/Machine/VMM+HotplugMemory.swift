import LinuxSystem

/// Memory that comes while the machine runs.
extension VMM {
    /// Has KVM know the first part of the hotplug memory, which the guest may use then. It knows no more than is needed: for each page
    /// of a memory slot KVM may take some bytes of the host.
    ///
    /// - Parameter bytes: whole `MemoryMap.hotplugUnit`s. A part that KVM knows already it goes on to know.
    /// - Throws: `MachineError` where the machine has not so much; `SystemError` where KVM refuses.
    public func provideHotplugMemory(_ bytes: UInt64) throws {
        guard bytes > hotplugBytes else { return }
        guard let bank = vm.map.hotplug, bytes <= bank.count, bytes % MemoryMap.hotplugUnit == 0 else {
            throw MachineError("hotplug memory of \(bytes) bytes: the machine has \(vm.map.hotplug?.count ?? 0)")
        }
        let (address, count) = (bank.address + hotplugBytes, bytes - hotplugBytes)
        guard let base = vm.memory.withBytes(at: address, count: Int(count), { $0.baseAddress }).flatMap({ $0 }) else {
            throw MachineError("memory at \(address) is not mapped")
        }
        // After those of the registers, the memory and the root image.
        try vm.addMemory(slot: UInt32(vm.map.ranges.count + 2) + hotplugSlots, at: address, base, count)
        hotplugSlots += 1
        hotplugBytes = bytes
    }
}
