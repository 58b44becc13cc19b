import CLinux
import Glibc
import LinuxSystem

/// What KVM keeps of an x86 machine apart from its vCPUs, and the CPUID that its vCPUs have.
struct PlatformState: Sendable, Equatable {
    /// Of the first vCPU: function, index, flags, eax, ebx, ecx, edx of each entry.
    var cpuid: [[UInt32]]
    /// `struct kvm_irqchip` of the two 8259s and the I/O APIC (KVM api.rst 4.26).
    var interruptControllers: [[UInt8]]
    /// Nanoseconds of the guest's kvm-clock.
    var clock: UInt64
    /// `ACPICPUStatus` of each vCPU that the machine can have; empty where it can't get more.
    var processors: [UInt8]

    /// The numbers of `struct kvm_irqchip`.
    fileprivate static let controllers = [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC]
    private static let maximumEntries = 1024

    func encode(to section: inout StateWriter) {
        section.add(each: cpuid) { section, entry in
            for value in entry { section.add(value) }
        }
        section.add(each: interruptControllers) { $0.add(bytes: $1) }
        section.add(clock)
        section.add(bytes: processors)
    }

    init(_ section: inout StateReader) throws(MachineError) {
        cpuid = try section.each("CPUID entries", atMost: Self.maximumEntries) { section throws(MachineError) in
            var entry: [UInt32] = []
            for _ in 0..<7 { entry.append(try section.number("CPUID entry")) }
            return entry
        }
        interruptControllers = try section.each("interrupt controllers", atMost: Self.controllers.count) {
            section throws(MachineError) in
            try section.bytes("interrupt controller")
        }
        guard interruptControllers.map(\.count) == Self.controllers.map({ _ in MemoryLayout<kvm_irqchip>.size }) else {
            throw section.error("interrupt controllers of other sizes")
        }
        clock = try section.number("clock")
        processors = try section.bytes("processors")
        guard processors.count <= VMM.vcpuCounts.upperBound else {
            throw section.error("\(processors.count) processors")
        }
    }

    init(cpuid: [[UInt32]], interruptControllers: [[UInt8]], clock: UInt64, processors: [UInt8] = []) {
        self.processors = processors
        self.cpuid = cpuid
        self.interruptControllers = interruptControllers
        self.clock = clock
    }

    /// CPUID entries as this state has them.
    static func numbers(_ entries: [kvm_cpuid_entry2]) -> [[UInt32]] {
        entries.map { [$0.function, $0.index, $0.flags, $0.eax, $0.ebx, $0.ecx, $0.edx] }
    }
}

extension VM {
    /// Reads the interrupt controllers' state.
    func saveInterruptControllers() throws -> [[UInt8]] {
        var states: [[UInt8]] = []
        for controller in PlatformState.controllers {
            var chip = kvm_irqchip()
            chip.chip_id = UInt32(controller)
            try call("KVM_GET_IRQCHIP", MARTLET_KVM_GET_IRQCHIP, &chip)
            states.append(withUnsafeBytes(of: &chip) { Array($0) })
        }
        return states
    }

    func restoreInterruptControllers(_ states: [[UInt8]]) throws {
        for (controller, state) in zip(PlatformState.controllers, states) {
            var chip = kvm_irqchip()
            withUnsafeMutableBytes(of: &chip) { $0.copyBytes(from: state) }
            chip.chip_id = UInt32(controller)
            try call("KVM_SET_IRQCHIP", MARTLET_KVM_SET_IRQCHIP, &chip)
        }
    }

    /// Nanoseconds of the guest's kvm-clock (KVM api.rst 4.29).
    func clock() throws -> UInt64 {
        var data = kvm_clock_data()
        try call("KVM_GET_CLOCK", MARTLET_KVM_GET_CLOCK, &data)
        return data.clock
    }

    func setClock(_ nanoseconds: UInt64) throws {
        var data = kvm_clock_data()
        data.clock = nanoseconds
        try call("KVM_SET_CLOCK", MARTLET_KVM_SET_CLOCK, &data)
    }
}
