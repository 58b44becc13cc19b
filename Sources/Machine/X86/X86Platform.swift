import CLinux
import Glibc
import LinuxSystem
import VMMControl

/// The x86 part of a machine: CPUID, APICs, ports, ACPI tables and the boot protocol.
final class X86Platform: MachinePlatform {
    static let requiredCapabilities: [(number: Int32, name: String)] = [(KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID")]
    /// Inputs of the I/O APIC: the event device's, then one for each MMIO slot.
    private static let eventGSI: UInt32 = 5
    static let slotInterrupts: ClosedRange<UInt32> = 6...23

    private let vm: VM
    private var vcpus: [VCPU]
    /// Of each vCPU that the machine can have.
    private let cpuid: [[kvm_cpuid_entry2]]
    /// nil: it has them all from the start on.
    private let processors: ProcessorControl?
    private let power: PowerControl
    private(set) var ports = Bus()
    private var serialPort: ACPIConfiguration.SerialPort?

    /// Makes two 8259s, an I/O APIC, and a local APIC for each vCPU. Before that KVM is told of the pages that it needs for
    /// itself on Intel's processors (KVM api.rst 4.34, 4.41).
    static func prepare(_ vm: VM) throws {
        try vm.call("KVM_SET_TSS_ADDR", MARTLET_KVM_SET_TSS_ADDR, Int(MemoryMap.taskState))
        var identityMap = MemoryMap.identityMap
        try vm.call("KVM_SET_IDENTITY_MAP_ADDR", MARTLET_KVM_SET_IDENTITY_MAP_ADDR, &identityMap)
        try vm.call("KVM_CREATE_IRQCHIP", MARTLET_KVM_CREATE_IRQCHIP, 0)
    }

    init(
        _ vm: VM, _ vcpus: [VCPU], maximumVCPUs: Int, cpu: GuestCPU, onEnd: @escaping @Sendable (MachineEnd) -> Void,
        onEject: @escaping @Sendable (Int) -> Void
    ) throws {
        self.vm = vm
        self.vcpus = vcpus
        let supported = CPUIDAllowList.filtered(
            CPUIDEntries.filled(try vm.kvm.supportedCPUID(), host: CPUIDEntries.host), cpu)
        let deadlineTimer = vm.kvm.value(of: KVM_CAP_TSC_DEADLINE_TIMER) > 0
        cpuid = (0..<maximumVCPUs).map {
            CPUIDEntries.entries(
                supported, vcpu: $0, count: maximumVCPUs, deadlineTimer: deadlineTimer)
        }
        power = try PowerControl(onEnd: onEnd)
        try ports.add(power, at: PowerControl.ports)
        processors =
            maximumVCPUs > vcpus.count
            ? ProcessorControl(count: vcpus.count, maximum: maximumVCPUs, onEject: onEject) : nil
        if let processors { try ports.add(processors, at: processors.ports) }
        try vm.connect(power.interrupt.raw, toInterrupt: Self.eventGSI)
    }

    func addSerialPort(output: SharedDescriptor) throws {
        let port = try SerialPort(output: output)
        try ports.add(port, at: SerialPort.ports)
        try vm.connect(port.interrupt.raw, toInterrupt: SerialPort.gsi)
        serialPort = .init(port: UInt16(SerialPort.ports.lowerBound), gsi: SerialPort.gsi)
    }

    func prepareBoot(_ image: BootImage, slots: [MMIOSlot]) throws {
        let entry = try image.loadLinux(into: vm.memory, vm.map)
        let tables = try ACPITables.build(
            at: MemoryMap.acpiTables,
            ACPIConfiguration(
                cpuCount: vcpus.count, maximumCPUCount: cpuid.count,
                virtioDevices: slots.map { .init(address: $0.address, gsi: $0.gsi) },
                generationID: MemoryMap.generationID, eventGSI: Self.eventGSI, serialPort: serialPort))
        guard tables.count <= Int(MemoryMap.acpiEnd - MemoryMap.acpiTables) else {
            throw MachineError("ACPI tables of \(tables.count) bytes")
        }
        try vm.memory.write(tables, at: MemoryMap.acpiTables, "ACPI tables")
        try writeGeneration()
        for vcpu in vcpus { try prepare(vcpu) }
        // The guest starts the others by their local APICs.
        try vcpus[0].set(.linux(entry: entry, vcpus[0].specialRegisters()), memory: vm.memory)
    }

    /// Gives a vCPU the state in which the guest finds it.
    private func prepare(_ vcpu: VCPU) throws {
        try vcpu.setCPUID(cpuid[vcpu.index])
        try vcpu.setMSRs()
        try vcpu.setLocalAPIC()
    }

    // MARK: vCPUs that come and go

    var presentVCPUs: Int { processors?.presentCount ?? vcpus.count }

    func isPresent(vcpu index: Int) -> Bool { processors?.isPresent(index) ?? (index < vcpus.count) }

    func add(_ vcpu: VCPU) throws {
        try prepare(vcpu)
        vcpus.append(vcpu)
    }

    func insert(vcpu index: Int) {
        processors?.insert(index)
        power.raise(.processors)
    }

    func remove(vcpu index: Int) {
        processors?.remove(index)
        power.raise(.processors)
    }

    /// Gives the guest a generation identifier of its own (vmgenid of the ACPI tables).
    private func writeGeneration() throws {
        var generation = [UInt8](repeating: 0, count: 16)
        try check("getentropy", "", generation.withUnsafeMutableBytes { getentropy($0.baseAddress, $0.count) })
        try vm.memory.write(generation, at: MemoryMap.generationID, "generation identifier")
    }

    func save() throws -> (PlatformState, [VCPUState]) {
        if serialPort != nil { throw MachineError("save: the machine has a serial port") }
        let msrs = try vm.kvm.savedMSRs()
        let states = try vcpus.map { try $0.save(msrs: msrs) }
        let platform = PlatformState(
            cpuid: PlatformState.numbers(cpuid[0]), interruptControllers: try vm.saveInterruptControllers(),
            clock: try vm.clock(), processors: processors?.state ?? [])
        return (platform, states)
    }

    func restore(_ state: PlatformState, _ states: [VCPUState]) throws {
        guard states.count == vcpus.count else {
            throw MachineError("the state has \(states.count) vCPUs; the machine has \(vcpus.count)")
        }
        guard state.processors.count == processors?.state.count ?? 0 else {
            throw MachineError("the state is of a machine that can have another number of vCPUs")
        }
        processors?.state = state.processors
        guard state.cpuid == PlatformState.numbers(cpuid[0]) else {
            throw MachineError("the state is of another CPU: its CPUID differs from this one's")
        }
        try vm.restoreInterruptControllers(state.interruptControllers)
        try vm.setClock(state.clock)
        for (vcpu, entries) in zip(vcpus, cpuid) { try vcpu.setCPUID(entries) }
        for (vcpu, state) in zip(vcpus, states) { try vcpu.restore(state) }
        try writeGeneration()
        power.raise(.generation)
    }

    func pressPowerButton() { power.raise(.powerButton) }
}
