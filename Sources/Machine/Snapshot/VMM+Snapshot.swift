/// The state of a machine, saved and restored. Its memory is the caller's: the file that the machine was made with.
extension VMM {
    /// Reads the state of a paused machine.
    ///
    /// - Throws: `MachineError` where the machine is not paused, or has something whose state is not kept.
    public func save() throws -> MachineSnapshot {
        try lifecycle.require("save") { $0 == .paused }
        let (platform, vcpus) = try platform.save()
        var states: [SlotState] = []
        for slot in slots { if let transport = slot.transport { states.append(try transport.save(slot: slot.index)) } }
        return MachineSnapshot(
            memoryBytes: vm.map.size, nested: nested, freeSlots: freeSlots.map(\.index), platform: platform,
            vcpus: vcpus, slots: states)
    }

    /// Sets the state of a machine that was made with the same memory size, vCPUs and devices, and starts the vCPUs. Memory must be
    /// as it was when the state was saved.
    ///
    /// - Returns: the monotonic time in nanoseconds just before the first vCPU entered the guest.
    /// - Throws: `MachineError` where the machine has run already, or the state does not fit it or this host.
    public func restore(_ snapshot: MachineSnapshot) throws -> UInt64 {
        try lifecycle.require("restore") { $0 == .created }
        guard snapshot.memoryBytes == vm.map.size else {
            throw MachineError("the state is of \(snapshot.memoryBytes) bytes of memory, not \(vm.map.size)")
        }
        guard snapshot.nested == nested else {
            throw MachineError("the state is of a machine with\(snapshot.nested ? "" : "out") nested virtualization")
        }
        let taken = slots.filter { $0.transport != nil }
        guard taken.map(\.index) == snapshot.slots.map(\.index) else {
            throw MachineError(
                "the state has devices in MMIO slots \(snapshot.slots.map(\.index)), not \(taken.map(\.index))")
        }
        try platform.restore(snapshot.platform, snapshot.vcpus)
        freeSlots = snapshot.freeSlots.map { slots[$0] }
        for (slot, state) in zip(taken, snapshot.slots) { try slot.transport?.restore(state) }
        return try start((taken + freeSlots).sorted { $0.index < $1.index })
    }
}
