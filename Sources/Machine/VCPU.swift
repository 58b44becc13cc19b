import CLinux
import Glibc
import LinuxSystem
import Synchronization
import Virtio

/// A virtual processor: its state before the start, and the loop that runs it.
///
/// `run` belongs to one thread; `stop` may be called by any.
public final class VCPU: @unchecked Sendable {
    let index: Int
    private let descriptor: OwnedDescriptor
    private let shared: Mapping
    private let thread = Atomic<Int32>(0)
    private let stopping = Atomic<Bool>(false)

    private var run: UnsafeMutablePointer<kvm_run> { shared.base.assumingMemoryBound(to: kvm_run.self) }

    init(_ vm: VM, index: Int) throws {
        self.index = index
        descriptor = try vm.makeVCPU(index)
        shared = try Mapping(file: descriptor.raw, count: vm.kvm.processorMappingSize, flags: MAP_SHARED)
    }

    // MARK: State

    /// KVM api.rst 4.87.
    func setIdentity(_ entries: [kvm_cpuid_entry2]) throws {
        let list = CPUIDList(entries)
        try check("KVM_SET_CPUID2", "", martlet_ioctl_pointer(descriptor.raw, MARTLET_KVM_SET_CPUID2, list.pointer))
    }

    func specialRegisters() throws -> kvm_sregs {
        var registers = kvm_sregs()
        try call("KVM_GET_SREGS", MARTLET_KVM_GET_SREGS, &registers)
        return registers
    }

    /// Puts the state and its tables in place.
    public func set(_ state: VCPUState, memory: GuestMemory) throws {
        for table in state.tables { try memory.write(table.bytes, at: table.address, "processor tables") }
        var state = state
        try call("KVM_SET_SREGS", MARTLET_KVM_SET_SREGS, &state.special)
        try call("KVM_SET_REGS", MARTLET_KVM_SET_REGS, &state.registers)
        var unit = kvm_fpu()
        unit.fcw = 0x37f
        unit.mxcsr = 0x1f80
        try call("KVM_SET_FPU", MARTLET_KVM_SET_FPU, &unit)
    }

    /// The model-specific registers that a firmware would have set: fast string instructions, and memory that is
    /// write-back where no range register says otherwise.
    func setModelRegisters() throws {
        let values: [(UInt32, UInt64)] = [(0x1a0, 1), (0x2ff, 1 << 11 | 6)]
        let header = MemoryLayout<kvm_msrs>.size
        let stride = MemoryLayout<kvm_msr_entry>.stride
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: header + values.count * stride, alignment: 8)
        defer { buffer.deallocate() }
        buffer.storeBytes(of: UInt64(values.count), as: UInt64.self)
        for (index, value) in values.enumerated() {
            var entry = kvm_msr_entry()
            entry.index = value.0
            entry.data = value.1
            (buffer + header + index * stride).storeBytes(of: entry, as: kvm_msr_entry.self)
        }
        let done = try check("KVM_SET_MSRS", "", martlet_ioctl_pointer(descriptor.raw, MARTLET_KVM_SET_MSRS, buffer))
        guard done == values.count else {
            throw MachineError("KVM_SET_MSRS: register \(hexadecimal(UInt64(values[Int(done)].0))) was refused")
        }
    }

    /// The local APIC: LINT1 is the NMI, and LINT0 is masked. KVM leaves LINT0 open for the 8259s, which hear of the lower
    /// interrupts too; nobody sets those up in a machine of this kind, so they would answer with vectors of exceptions.
    func setLocalInterrupts() throws {
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

    private func call<T>(_ name: String, _ request: UInt, _ argument: inout T) throws(SystemError) {
        try check(
            name, "processor \(index)",
            withUnsafeMutablePointer(to: &argument) {
                martlet_ioctl_pointer(descriptor.raw, request, UnsafeMutableRawPointer($0))
            })
    }

    // MARK: Running

    /// Runs the guest until it ends or `stop` is called. What it does outside of itself goes to the buses.
    func run(ports: Bus, memory: Bus) -> VCPUEnd {
        thread.store(martlet_gettid(), ordering: .sequentiallyConsistent)
        let run = run
        while true {
            if stopping.load(ordering: .sequentiallyConsistent) { return .stopped }
            if martlet_ioctl_int(descriptor.raw, MARTLET_KVM_RUN, 0) < 0 {
                if errno == EINTR || errno == EAGAIN { continue }
                return .unhandled("KVM_RUN: \(SystemError.last("processor \(index)").errno)")
            }
            switch Int32(bitPattern: run.pointee.exit_reason) {
            case KVM_EXIT_IO: portAccess(ports)
            case KVM_EXIT_MMIO: memoryAccess(memory)
            case KVM_EXIT_HLT: return .halted
            case KVM_EXIT_SHUTDOWN: return .tripleFault
            case KVM_EXIT_INTR, KVM_EXIT_IRQ_WINDOW_OPEN: continue
            case KVM_EXIT_SYSTEM_EVENT: return .systemEvent(run.pointee.system_event.type)
            default: return .unhandled(unhandled())
            }
        }
    }

    /// Makes `run` return soon, now or when it is called.
    func stop() {
        stopping.store(true, ordering: .sequentiallyConsistent)
        run.pointee.immediate_exit = 1
        let id = thread.load(ordering: .sequentiallyConsistent)
        // A thread that is not in KVM_RUN yet sees the flags; one that is gets out by the signal.
        if id != 0 { martlet_tgkill(id, MachineSignal.kick) }
    }

    /// KVM_EXIT_IO: one access, or several for a string instruction.
    private func portAccess(_ ports: Bus) {
        let access = run.pointee.io
        let size = Int(access.size)
        var place = shared.base + Int(access.data_offset)
        for _ in 0..<access.count {
            let data = UnsafeMutableRawBufferPointer(start: place, count: size)
            if Int32(access.direction) == KVM_EXIT_IO_OUT {
                ports.write(UInt64(access.port), UnsafeRawBufferPointer(data))
            } else {
                ports.read(UInt64(access.port), data)
            }
            place += size
        }
    }

    private func memoryAccess(_ bus: Bus) {
        let address = run.pointee.mmio.phys_addr
        let count = min(Int(run.pointee.mmio.len), 8)
        let isWrite = run.pointee.mmio.is_write != 0
        withUnsafeMutableBytes(of: &run.pointee.mmio.data) { data in
            let data = UnsafeMutableRawBufferPointer(rebasing: data[..<count])
            if isWrite { bus.write(address, UnsafeRawBufferPointer(data)) } else { bus.read(address, data) }
        }
    }

    private func unhandled() -> String {
        switch Int32(bitPattern: run.pointee.exit_reason) {
        case KVM_EXIT_INTERNAL_ERROR:
            "KVM could not go on (internal error \(run.pointee.`internal`.suberror))\(position)"
        case KVM_EXIT_FAIL_ENTRY:
            "the processor refused to enter the guest "
                + "(reason \(hexadecimal(run.pointee.fail_entry.hardware_entry_failure_reason)))\(position)"
        default: "KVM exit \(run.pointee.exit_reason)\(position)"
        }
    }

    /// Where the guest was, for messages.
    private var position: String {
        var registers = kvm_regs()
        let failed = withUnsafeMutablePointer(to: &registers) {
            martlet_ioctl_pointer(descriptor.raw, MARTLET_KVM_GET_REGS, $0)
        }
        return failed < 0 ? "" : " at rip \(hexadecimal(registers.rip))"
    }
}

/// Why a processor no longer runs.
public enum VCPUEnd: Sendable, Equatable {
    /// `stop` was called.
    case stopped
    /// HLT where there are no interrupt controllers.
    case halted
    /// A fault while handling a fault while handling a fault: the processor shuts down.
    case tripleFault
    /// KVM_EXIT_SYSTEM_EVENT with its type.
    case systemEvent(UInt32)
    /// What KVM said that has no meaning here.
    case unhandled(String)
}

/// The signal that gets a thread out of KVM_RUN. Its handler does nothing.
enum MachineSignal {
    static let kick = SIGUSR1

    /// To be called before the first processor runs.
    static func install() throws(SystemError) {
        try check("sigaction", "SIGUSR1", martlet_ignore_with_handler(kick))
    }
}
