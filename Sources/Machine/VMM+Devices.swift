import LinuxSystem
public import Virtio

/// The virtio devices of a machine, each in an MMIO slot.
extension VMM {
    /// Adds a virtio device before the boot.
    ///
    /// - Parameters:
    ///   - deviceID: the kind of device (virtio 1.2, 5).
    ///   - index: the slot's number; nil: the next one.
    ///   - maximumSize: entries that a queue may have.
    ///   - onFailure: one of its queues could not start; called on the loop's thread.
    /// - Throws: `MachineError` where the machine has been booted, or all slots are taken.
    public func addVirtio(
        deviceID: UInt32, _ device: any BackendDevice, slot index: Int? = nil, maximumSize: UInt32 = 256,
        onFailure: @escaping @Sendable (String) -> Void
    ) throws {
        try lifecycle.require("add device") { $0 == .created }
        let isWanted = { (slot: MMIOSlot) in slot.transport == nil && index.map { $0 == slot.index } ?? true }
        guard let slot = slots.first(where: isWanted) else {
            if let index { throw MachineError("MMIO slot \(index) is taken, or there is no such slot") }
            throw MachineError("more than \(slots.count) virtio devices")
        }
        try fill(slot, deviceID, device, maximumSize, onFailure)
    }

    /// Adds a virtio device to the booted machine, where the guest's driver finds it when it probes its empty slots.
    ///
    /// - Parameters: as of `addVirtio`.
    /// - Returns: the slot's number, for `unplugVirtio`.
    /// - Throws: `MachineError` where the machine is not booted, or has no free slot.
    public func plugVirtio(
        deviceID: UInt32, _ device: any BackendDevice, maximumSize: UInt32 = 256,
        onFailure: @escaping @Sendable (String) -> Void
    ) throws -> Int {
        try lifecycle.require("plug device", \.isBooted)
        guard let slot = freeSlots.first else { throw MachineError("the machine has no free MMIO slot") }
        try fill(slot, deviceID, device, maximumSize, onFailure)
        freeSlots.removeFirst()
        return slot.index
    }

    /// Takes a device away from the booted machine, whatever its driver does with it: it is reset, its queues and threads are
    /// stopped, and nothing of the guest reaches it any more. The guest should have unbound its driver before; a driver that is
    /// still bound keeps the guest from using the slot.
    ///
    /// - Parameters:
    ///   - index: the slot's number, of `plugVirtio`.
    ///   - done: the slot is free; called on the loop's thread, perhaps before this returns.
    /// - Throws: `MachineError` where there is no such device.
    public func unplugVirtio(slot index: Int, _ done: @escaping @Sendable () -> Void) throws {
        try lifecycle.require("unplug device", \.isBooted)
        guard slots.indices.contains(index), let transport = slots[index].transport else {
            throw MachineError("unplug device: MMIO slot \(index) has no device")
        }
        slots[index].remove()
        empty(slots[index], transport, done)
    }

    private func empty(_ slot: MMIOSlot, _ transport: VirtioTransport, _ done: @escaping @Sendable () -> Void) {
        guard transport.detach() else {
            // A vCPU's access is under way, and waits for this thread: after it.
            return loop.post { [self] in empty(slot, transport, done) }
        }
        do {
            try disconnect(transport, slot)
        } catch {
            return transport.onFailure("MMIO slot \(slot.index) is lost: \(error)")
        }
        slot.describeEmpty()
        // Last in turn: a guest that still has a driver bound to this slot is offered the others first.
        freeSlots.append(slot)
        done()
    }

    private func fill(
        _ slot: MMIOSlot, _ deviceID: UInt32, _ device: any BackendDevice, _ maximumSize: UInt32,
        _ onFailure: @escaping @Sendable (String) -> Void
    ) throws {
        let transport = try VirtioTransport(
            deviceID: deviceID, device: device, memory: vm.memory, page: slot.page, loop: loop,
            maximumSize: maximumSize, onFailure: onFailure)
        do {
            try connect(transport, slot)
        } catch {
            slot.describeEmpty()
            throw error
        }
        slot.insert(transport)
    }

    private func connect(_ transport: VirtioTransport, _ slot: MMIOSlot) throws {
        try vm.connect(transport.interrupt.raw, toInterrupt: slot.gsi)
        let line = InterruptLine(vm, gsi: slot.gsi)
        transport.raiseDirectly { line.pulse() }
        for (queue, kick) in transport.kicks.enumerated() {
            try vm.connect(write: UInt32(queue), at: slot.address + VirtioRegister.queueNotify, to: kick.raw)
        }
        try vm.connect(
            write: InterruptStatus.usedBuffers, at: slot.address + VirtioRegister.interruptAcknowledge,
            to: acknowledgements.descriptor.raw)
    }

    private func disconnect(_ transport: VirtioTransport, _ slot: MMIOSlot) throws {
        try vm.disconnect(transport.interrupt.raw, fromInterrupt: slot.gsi)
        for (queue, kick) in transport.kicks.enumerated() {
            try vm.disconnect(write: UInt32(queue), at: slot.address + VirtioRegister.queueNotify, from: kick.raw)
        }
        try vm.disconnect(
            write: InterruptStatus.usedBuffers, at: slot.address + VirtioRegister.interruptAcknowledge,
            from: acknowledgements.descriptor.raw)
    }
}
