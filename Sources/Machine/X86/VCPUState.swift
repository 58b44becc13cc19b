import CLinux
import Glibc
import LinuxSystem

/// Everything that KVM keeps of an x86 vCPU, as KVM gives and takes it.
struct VCPUState: Sendable, Equatable {
    struct MSR: Sendable, Equatable {
        var index: UInt32
        var value: UInt64
    }

    /// Of the time stamp counter.
    var tscKHz: UInt32
    /// The register sets, in the order of `parts`.
    var parts: [[UInt8]]
    var msrs: [MSR]

    /// A set of registers that KVM gives and takes as one structure.
    struct Part: Sendable {
        var name: String
        var get: UInt
        var set: UInt
        /// Bytes of the structure.
        var size: Int
    }

    /// In the order in which they are set: a later one depends on earlier ones. The MSRs come between `beforeMSRs` of them and the
    /// rest.
    static let parts: [Part] = [
        Part("MP_STATE", MARTLET_KVM_GET_MP_STATE, MARTLET_KVM_SET_MP_STATE, MemoryLayout<kvm_mp_state>.size),
        Part("REGS", MARTLET_KVM_GET_REGS, MARTLET_KVM_SET_REGS, MemoryLayout<kvm_regs>.size),
        Part("SREGS", MARTLET_KVM_GET_SREGS, MARTLET_KVM_SET_SREGS, MemoryLayout<kvm_sregs>.size),
        // XCR0 first: it says what the XSAVE area has.
        Part("XCRS", MARTLET_KVM_GET_XCRS, MARTLET_KVM_SET_XCRS, MemoryLayout<kvm_xcrs>.size),
        Part("XSAVE", MARTLET_KVM_GET_XSAVE, MARTLET_KVM_SET_XSAVE, xsaveSize),
        Part("DEBUGREGS", MARTLET_KVM_GET_DEBUGREGS, MARTLET_KVM_SET_DEBUGREGS, MemoryLayout<kvm_debugregs>.size),
        Part("LAPIC", MARTLET_KVM_GET_LAPIC, MARTLET_KVM_SET_LAPIC, MemoryLayout<kvm_lapic_state>.size),
        Part(
            "VCPU_EVENTS", MARTLET_KVM_GET_VCPU_EVENTS, MARTLET_KVM_SET_VCPU_EVENTS,
            MemoryLayout<kvm_vcpu_events>.size),
    ]
    static let beforeMSRs = 7
    /// Of `struct kvm_xsave` without its flexible end (KVM api.rst 4.42). A guest has no larger area: that would need a permission
    /// that nothing asks for (AMX).
    private static let xsaveSize = 4096
    /// KVM has about 150.
    private static let maximumMSRs = 1024

    func encode(to section: inout StateWriter) {
        section.add(tscKHz)
        section.add(each: parts) { $0.add(bytes: $1) }
        section.add(each: msrs) { section, msr in
            section.add(msr.index)
            section.add(msr.value)
        }
    }

    init(_ section: inout StateReader) throws(MachineError) {
        tscKHz = try section.number("TSC frequency")
        parts = try section.each("register sets", atMost: Self.parts.count) { section throws(MachineError) in
            try section.bytes("register set")
        }
        guard parts.map(\.count) == Self.parts.map(\.size) else { throw section.error("register sets of other sizes") }
        msrs = try section.each("MSRs", atMost: Self.maximumMSRs) { section throws(MachineError) in
            MSR(index: try section.number("MSR"), value: try section.number("value of an MSR"))
        }
    }

    init(tscKHz: UInt32, parts: [[UInt8]], msrs: [MSR]) {
        self.tscKHz = tscKHz
        self.parts = parts
        self.msrs = msrs
    }
}

extension VCPUState.Part {
    fileprivate init(_ name: String, _ get: UInt, _ set: UInt, _ size: Int) {
        self.init(name: name, get: get, set: set, size: size)
    }
}

/// The vCPU's state. Its thread must not be in KVM_RUN meanwhile.
extension VCPU {
    private typealias MSR = VCPUState.MSR

    /// Reads the state.
    ///
    /// - Parameter msrs: the MSRs that KVM can save, `KVM.savedMSRs`.
    func save(msrs: [UInt32]) throws -> VCPUState {
        var parts: [[UInt8]] = []
        for part in VCPUState.parts { parts.append(try get(part)) }
        return VCPUState(tscKHz: try tscKHz(), parts: parts, msrs: try values(of: msrs))
    }

    /// Sets the state of a vCPU that has its CPUID and has not run.
    ///
    /// - Throws: `MachineError` where this CPU is another than the one whose state it is.
    func restore(_ state: VCPUState) throws {
        let khz = try tscKHz()
        // KVM corrects differences below this (kvm.tsc_tolerance_ppm).
        guard abs(Int64(khz) - Int64(state.tscKHz)) * 1_000_000 <= Int64(state.tscKHz) * 250 else {
            throw MachineError(
                "the state is of a CPU whose time stamp counter has \(state.tscKHz) kHz; this one has \(khz)")
        }
        let parts = zip(VCPUState.parts, state.parts)
        for (part, bytes) in parts.prefix(VCPUState.beforeMSRs) { try set(part, bytes) }
        // The timer is armed last: it depends on the time stamp counter and the local APIC.
        try set(state.msrs.filter { $0.index != Self.deadlineTimer })
        try set(state.msrs.filter { $0.index == Self.deadlineTimer })
        for (part, bytes) in parts.dropFirst(VCPUState.beforeMSRs) { try set(part, bytes) }
    }

    /// IA32_TSC_DEADLINE.
    private static let deadlineTimer: UInt32 = 0x6e0

    private func get(_ part: VCPUState.Part) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: part.size)
        try check(
            "KVM_GET_\(part.name)", "vCPU \(index)",
            bytes.withUnsafeMutableBytes { martlet_ioctl_pointer(descriptor.raw, part.get, $0.baseAddress) })
        return bytes
    }

    private func set(_ part: VCPUState.Part, _ bytes: [UInt8]) throws {
        // A CPU without XSAVE has no extended control registers, and KVM takes none.
        if part.set == MARTLET_KVM_SET_XCRS, bytes.allSatisfy({ $0 == 0 }) { return }
        var bytes = bytes
        try check(
            "KVM_SET_\(part.name)", "vCPU \(index)",
            bytes.withUnsafeMutableBytes { martlet_ioctl_pointer(descriptor.raw, part.set, $0.baseAddress) })
    }

    private func tscKHz() throws -> UInt32 {
        UInt32(
            clamping: try check(
                "KVM_GET_TSC_KHZ", "vCPU \(index)", martlet_ioctl_int(descriptor.raw, MARTLET_KVM_GET_TSC_KHZ, 0)))
    }

    // MARK: MSRs

    /// The values of the MSRs that this vCPU has; KVM's list names some that only other vCPUs have.
    private func values(of indices: [UInt32]) throws -> [MSR] {
        var values: [MSR] = []
        var rest = indices[...]
        while !rest.isEmpty {
            let list = MSRList(rest.map { MSR(index: $0, value: 0) })
            let done = Int(
                try check(
                    "KVM_GET_MSRS", "vCPU \(index)",
                    martlet_ioctl_pointer(descriptor.raw, MARTLET_KVM_GET_MSRS, list.pointer)))
            values += list.values.prefix(done)
            // The one that KVM stopped at.
            rest = rest.dropFirst(done + 1)
        }
        return values
    }

    /// Sets MSRs, until KVM does not take one.
    ///
    /// - Returns: how many it has taken.
    func setFirst(of msrs: [VCPUState.MSR]) throws(SystemError) -> Int {
        let list = MSRList(msrs)
        return Int(
            try check(
                "KVM_SET_MSRS", "vCPU \(index)",
                martlet_ioctl_pointer(descriptor.raw, MARTLET_KVM_SET_MSRS, list.pointer)))
    }

    /// Sets MSRs. One that KVM does not take must have the value already.
    private func set(_ msrs: [MSR]) throws {
        var rest = msrs[...]
        while !rest.isEmpty {
            let done = try setFirst(of: Array(rest))
            if let refused = rest.dropFirst(done).first, try values(of: [refused.index]) != [refused] {
                throw MachineError(
                    "KVM_SET_MSRS: vCPU \(index): \(hexadecimal(refused.value)) for MSR "
                        + "\(hexadecimal(UInt64(refused.index))) was refused")
            }
            rest = rest.dropFirst(done + 1)
        }
    }
}

/// `struct kvm_msrs`, whose entries follow it in memory.
private final class MSRList {
    let pointer: UnsafeMutableRawPointer
    private let count: Int
    private static let header = MemoryLayout<kvm_msrs>.size

    init(_ msrs: [VCPUState.MSR]) {
        count = msrs.count
        let stride = MemoryLayout<kvm_msr_entry>.stride
        pointer = .allocate(byteCount: Self.header + count * stride, alignment: 8)
        pointer.storeBytes(of: UInt64(count), as: UInt64.self)
        for (index, msr) in msrs.enumerated() {
            var entry = kvm_msr_entry()
            entry.index = msr.index
            entry.data = msr.value
            (pointer + Self.header + index * stride).storeBytes(of: entry, as: kvm_msr_entry.self)
        }
    }

    deinit { pointer.deallocate() }

    var values: [VCPUState.MSR] {
        let entries = (pointer + Self.header).assumingMemoryBound(to: kvm_msr_entry.self)
        return UnsafeBufferPointer(start: entries, count: count).map { VCPUState.MSR(index: $0.index, value: $0.data) }
    }
}

extension KVM {
    /// The MSRs whose values make up a vCPU's state (KVM api.rst 4.3).
    func savedMSRs() throws -> [UInt32] {
        var numbers = [UInt32](repeating: 0, count: 1 + 1024)
        numbers[0] = 1024
        try check(
            "KVM_GET_MSR_INDEX_LIST", "",
            numbers.withUnsafeMutableBytes {
                martlet_ioctl_pointer(device.raw, MARTLET_KVM_GET_MSR_INDEX_LIST, $0.baseAddress)
            })
        return Array(numbers.dropFirst().prefix(Int(min(numbers[0], 1024))))
    }
}
