import Glibc
import LinuxSystem

/// The state of a machine, saved and restored.
extension VMM {
    /// Reads the state of a paused machine, and writes its memory. Nothing changes the memory meanwhile: the devices' queues stand
    /// still.
    ///
    /// - Parameters:
    ///   - file: an empty file of the memory's size. Pages of zeros stay holes.
    ///   - hotplugged: guest-physical addresses of the plugged parts of `MemoryMap.hotplug`.
    /// - Throws: `MachineError` where the machine is not paused, or has something whose state is not kept; `SystemError` where the
    ///   file can't be written. The machine can go on in any case.
    public func save(memory file: Int32, hotplugged: [Range<UInt64>] = []) throws -> MachineSnapshot {
        try lifecycle.require("save") { $0 == .paused }
        var suspended: [(transport: VirtioTransport, state: SlotState)] = []
        defer { for (transport, state) in suspended { transport.resume(state) } }
        for slot in slots {
            guard let transport = slot.transport else { continue }
            suspended.append((transport, try transport.suspend(slot: slot.index)))
        }
        let (platform, vcpus) = try platform.save()
        try vm.writeMemory(to: file, hotplugged: hotplugged)
        return MachineSnapshot(
            memoryBytes: vm.map.size, cpu: cpu, freeSlots: freeSlots.map(\.index), platform: platform,
            vcpus: vcpus, slots: suspended.map(\.state))
    }

    /// Sets the state of a machine that was made with the same memory size, vCPUs and devices, and starts the vCPUs. Memory must be
    /// as it was when the state was saved.
    ///
    /// - Parameter prepare: called when everything is set and no vCPU runs yet.
    /// - Returns: the monotonic time in nanoseconds just before the first vCPU entered the guest.
    /// - Throws: `MachineError` where the machine has run already, or the state does not fit it or this host.
    public func restore(_ snapshot: MachineSnapshot, prepare: () throws -> Void = {}) throws -> UInt64 {
        try lifecycle.require("restore") { $0 == .created }
        guard snapshot.memoryBytes == vm.map.size else {
            throw MachineError("the state is of \(snapshot.memoryBytes) bytes of memory, not \(vm.map.size)")
        }
        guard snapshot.cpu == cpu else {
            throw MachineError("the state is of a machine with another CPU: \(snapshot.cpu), not \(cpu)")
        }
        let taken = slots.filter { $0.transport != nil }
        guard taken.map(\.index) == snapshot.slots.map(\.index) else {
            throw MachineError(
                "the state has devices in MMIO slots \(snapshot.slots.map(\.index)), not \(taken.map(\.index))")
        }
        // Those that the saved machine got while it ran.
        while madeVCPUs < min(snapshot.vcpus.count, maximumVCPUs) { try makeVCPU() }
        try platform.restore(snapshot.platform, snapshot.vcpus)
        for index in 0..<madeVCPUs where !platform.isPresent(vcpu: index) { threads.eject(index) }
        freeSlots = snapshot.freeSlots.map { slots[$0] }
        for (slot, state) in zip(taken, snapshot.slots) { try slot.transport?.restore(state) }
        try prepare()
        return try start((taken + freeSlots).sorted { $0.index < $1.index })
    }
}
