import CLinux
import Glibc
import LinuxSystem
import Virtio

/// A vCPU's registers and port accesses.
extension VCPU {
    // MARK: State before the start

    /// KVM api.rst 4.87.
    func setCPUID(_ entries: [kvm_cpuid_entry2]) throws {
        let list = CPUIDList(entries)
        try check("KVM_SET_CPUID2", "", martlet_ioctl_pointer(descriptor.raw, MARTLET_KVM_SET_CPUID2, list.pointer))
    }

    func specialRegisters() throws -> kvm_sregs {
        var registers = kvm_sregs()
        try call("KVM_GET_SREGS", MARTLET_KVM_GET_SREGS, &registers)
        return registers
    }

    /// Sets the registers, and writes their tables into memory.
    func set(_ state: InitialState, memory: GuestMemory) throws {
        for table in state.tables { try memory.write(table.bytes, at: table.address, "page and descriptor tables") }
        var state = state
        try call("KVM_SET_SREGS", MARTLET_KVM_SET_SREGS, &state.special)
        try call("KVM_SET_REGS", MARTLET_KVM_SET_REGS, &state.registers)
        var unit = kvm_fpu()
        unit.fcw = 0x37f
        unit.mxcsr = 0x1f80
        try call("KVM_SET_FPU", MARTLET_KVM_SET_FPU, &unit)
    }

    /// Sets the MSRs that firmware would have set: fast string instructions (IA32_MISC_ENABLE), and memory that is write-back
    /// where no range register says otherwise (IA32_MTRR_DEF_TYPE).
    func setMSRs() throws {
        let msrs = [VCPUState.MSR(index: 0x1a0, value: 1), VCPUState.MSR(index: 0x2ff, value: 1 << 11 | 6)]
        let done = try setFirst(of: msrs)
        guard done == msrs.count else {
            throw MachineError("KVM_SET_MSRS: MSR \(hexadecimal(UInt64(msrs[done].index))) was refused")
        }
    }

    /// Sets the local APIC: LINT1 is the NMI, and LINT0 is masked. KVM leaves LINT0 open for the 8259s, which get the lower
    /// interrupts too. Nothing sets the 8259s up in this machine, so they would answer with vectors of exceptions.
    func setLocalAPIC() throws {
        var state = kvm_lapic_state()
        try call("KVM_GET_LAPIC", MARTLET_KVM_GET_LAPIC, &state)
        withUnsafeMutableBytes(of: &state) { bytes in
            let externalInterrupt: UInt32 = 7 << 8
            let masked: UInt32 = 1 << 16
            let nonMaskable: UInt32 = 4 << 8
            bytes.storeBytes(of: externalInterrupt | masked, toByteOffset: 0x350, as: UInt32.self)
            bytes.storeBytes(of: nonMaskable, toByteOffset: 0x360, as: UInt32.self)
        }
        try call("KVM_SET_LAPIC", MARTLET_KVM_SET_LAPIC, &state)
    }

    // MARK: While it runs; called on the vCPU's thread

    /// Handles an exit that other architectures do not have.
    ///
    /// - Returns: false where the exit is unknown.
    func handlePlatformExit(_ reason: Int32, _ buses: Buses) -> Bool {
        guard reason == KVM_EXIT_IO else { return false }
        accessPort(buses.ports)
        return true
    }

    /// KVM_EXIT_IO: one access, or several for a string instruction.
    private func accessPort(_ ports: Bus) {
        let access = state.pointee.io
        let size = Int(access.size)
        var position = shared.base + Int(access.data_offset)
        for _ in 0..<access.count {
            let data = UnsafeMutableRawBufferPointer(start: position, count: size)
            if Int32(access.direction) == KVM_EXIT_IO_OUT {
                ports.write(UInt64(access.port), UnsafeRawBufferPointer(data))
            } else {
                ports.read(UInt64(access.port), data)
            }
            position += size
        }
    }

    /// Tells the guest's clock that the vCPU was paused, so that its watchdogs do not take the pause for a hang (KVM api.rst
    /// 4.77). A guest without KVM's clock has nothing to be told; then KVM answers EINVAL.
    func prepareForPause() { _ = martlet_ioctl_int(descriptor.raw, MARTLET_KVM_KVMCLOCK_CTRL, 0) }

    /// What the vCPU does: it is dead when it is halted with interrupts disabled.
    var activity: VCPUActivity {
        var state = kvm_mp_state()
        do { try call("KVM_GET_MP_STATE", MARTLET_KVM_GET_MP_STATE, &state) } catch { return .running }
        switch Int32(bitPattern: state.mp_state) {
        case KVM_MP_STATE_UNINITIALIZED, KVM_MP_STATE_INIT_RECEIVED: return .notStarted
        case KVM_MP_STATE_HALTED:
            guard let registers, registers.rflags & VCPURegisters.interruptFlag == 0 else { return .running }
            return .dead(registers)
        default: return .running
        }
    }

    /// The registers now; nil where KVM does not give them.
    var registers: VCPURegisters? {
        var general = kvm_regs()
        var special = kvm_sregs()
        var events = kvm_vcpu_events()
        do {
            try call("KVM_GET_REGS", MARTLET_KVM_GET_REGS, &general)
            try call("KVM_GET_SREGS", MARTLET_KVM_GET_SREGS, &special)
            try call("KVM_GET_VCPU_EVENTS", MARTLET_KVM_GET_VCPU_EVENTS, &events)
        } catch {
            return nil
        }
        return VCPURegisters(general, special, events)
    }
}
