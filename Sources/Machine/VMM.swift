import CLinux
import Glibc
public import LinuxSystem
import Synchronization
public import Virtio

/// A whole machine: processors, buses, devices and the wires between them.
///
/// Devices are added first, then `boot` fixes the buses and starts the processors' threads; what comes later takes a spare
/// place. Belongs to the loop's thread.
public final class VMM {
    /// How many processors a machine may have.
    public static let processorCounts = 1...32
    /// Inputs of the I/O APIC: the events', then one for each virtio device.
    private static let eventGSI: UInt32 = 5
    private static let virtioGSIs: ClosedRange<UInt32> = 6...23
    /// How many virtio devices can be added to a running machine.
    private static let spareCount = 8

    public let vm: VM
    private let processors: [VCPU]
    private let identities: [[kvm_cpuid_entry2]]
    private let loop: LoopTasks
    private let power: PowerControl
    private let onEnd: @Sendable (MachineEnd) -> Void
    private var ports = Bus()
    private var registers = Bus()
    private var serialPort: ACPIConfiguration.SerialPort?
    private var virtio: [ACPIConfiguration.VirtioDevice] = []
    /// Free places of the running machine, the next one first.
    private var spares: [HotplugSlot] = []
    private let acknowledged: EventDescriptor

    /// - Parameters:
    ///   - memoryFile: a memory file of `map.size` bytes.
    ///   - onEnd: the machine has stopped; called once, on any thread.
    public init(
        _ kvm: KVM, map: MemoryMap, memoryFile: SharedDescriptor, processors count: Int, loop: LoopTasks,
        onEnd: @escaping @Sendable (MachineEnd) -> Void
    ) throws {
        guard Self.processorCounts.contains(count) else {
            throw MachineError("\(count) processors: not 1 to \(Self.processorCounts.upperBound)")
        }
        let ended = Once()
        let onEnd: @Sendable (MachineEnd) -> Void = { end in if ended.first() { onEnd(end) } }
        self.onEnd = onEnd
        self.loop = loop
        acknowledged = try EventDescriptor()
        vm = try VM(kvm, map: map, memoryFile: memoryFile)
        let supported = try kvm.supportedCPUID()
        let deadlineTimer = kvm.extent(of: KVM_CAP_TSC_DEADLINE_TIMER) > 0
        identities = (0..<count).map {
            VCPUIdentity.entries(supported, processor: $0, count: count, deadlineTimer: deadlineTimer)
        }
        let vm = vm
        processors = try (0..<count).map { try VCPU(vm, index: $0) }
        power = try PowerControl(onEnd: onEnd)
        try ports.add(power, at: PowerControl.ports)
        try vm.connect(power.interrupt.raw, toInterrupt: Self.eventGSI)
    }

    /// Adds a virtio device at the next free place.
    ///
    /// - Parameters:
    ///   - deviceID: the kind of device (virtio 1.2, 5).
    ///   - onFailure: one of its queues could not start; told on the loop's thread.
    @discardableResult
    public func addVirtio(
        deviceID: UInt32, _ device: any BackendDevice, maximumSize: UInt32 = 256,
        onFailure: @escaping @Sendable (String) -> Void
    ) throws -> VirtioTransport {
        guard virtio.count < Self.virtioGSIs.count else {
            throw MachineError("more than \(Self.virtioGSIs.count) virtio devices")
        }
        let place = place(virtio.count)
        let transport = try VirtioTransport(
            deviceID: deviceID, device: device, memory: vm.memory, page: page(virtio.count), loop: loop,
            maximumSize: maximumSize, onFailure: onFailure)
        try registers.add(transport, at: place.address..<place.address + MemoryMap.virtioPage)
        try connect(transport, at: place)
        virtio.append(place)
        return transport
    }

    /// Puts a virtio device on one of the running machine's spare places, where its driver finds it when it looks again.
    ///
    /// - Parameters: as of `addVirtio`.
    public func plugVirtio(
        deviceID: UInt32, _ device: any BackendDevice, maximumSize: UInt32 = 256,
        onFailure: @escaping @Sendable (String) -> Void
    ) throws {
        guard let spare = spares.first else { throw MachineError("the machine has no spare place for a device") }
        let transport = try VirtioTransport(
            deviceID: deviceID, device: device, memory: vm.memory, page: spare.page, loop: loop,
            maximumSize: maximumSize, onFailure: onFailure)
        try connect(transport, at: spare.place)
        spare.slot.fill(transport)
        spares.removeFirst()
    }

    /// Where virtio device `number` is.
    private func place(_ number: Int) -> ACPIConfiguration.VirtioDevice {
        .init(
            address: MemoryMap.virtioBase + UInt64(number) * MemoryMap.virtioPage,
            gsi: Self.virtioGSIs.lowerBound + UInt32(number))
    }

    private func page(_ number: Int) -> RegisterPage {
        RegisterPage(vm.registers.base + number * RegisterPage.size)
    }

    private func connect(_ transport: VirtioTransport, at place: ACPIConfiguration.VirtioDevice) throws {
        try vm.connect(transport.interrupt.raw, toInterrupt: place.gsi)
        let line = InterruptLine(vm, gsi: place.gsi)
        transport.raiseDirectly { line.pulse() }
        for (queue, kick) in transport.kicks.enumerated() {
            try vm.connect(write: UInt32(queue), at: place.address + VirtioRegister.queueNotify, to: kick.raw)
        }
        // The acknowledgement of used buffers changes nothing: nobody listens to this one.
        try vm.connect(
            write: 1, at: place.address + VirtioRegister.interruptAcknowledge, to: acknowledged.descriptor.raw)
    }

    /// Leaves places free for devices that come later, as many as there are, `spareCount` at most.
    private func reserveHotplugSlots() throws {
        for number in (virtio.count..<Self.virtioGSIs.count).prefix(Self.spareCount) {
            let spare = HotplugSlot(place: place(number), page: page(number))
            try registers.add(spare.slot, at: spare.place.address..<spare.place.address + MemoryMap.virtioPage)
            spares.append(spare)
        }
    }

    /// Adds a serial port that sends to `output`, without waiting.
    public func addSerialPort(output: SharedDescriptor) throws {
        let port = try SerialPort(output: output)
        try ports.add(port, at: SerialPort.ports)
        try vm.connect(port.interrupt.raw, toInterrupt: SerialPort.gsi)
        serialPort = .init(port: UInt16(SerialPort.ports.lowerBound), gsi: SerialPort.gsi)
    }

    /// Loads Linux and starts the processors.
    ///
    /// - Returns: the monotonic time in nanoseconds just before the first processor entered the guest.
    public func boot(_ image: BootImage) throws -> UInt64 {
        let entry = try image.load(into: vm.memory, vm.map)
        if spares.isEmpty { try reserveHotplugSlots() }
        let tables = try ACPITables.build(at: MemoryMap.acpiTables, configuration)
        guard tables.count <= Int(MemoryMap.acpiEnd - MemoryMap.acpiTables) else {
            throw MachineError("ACPI tables of \(tables.count) bytes")
        }
        try vm.memory.write(tables, at: MemoryMap.acpiTables, "ACPI tables")
        var generation = [UInt8](repeating: 0, count: 16)
        try check("getentropy", "", generation.withUnsafeMutableBytes { getentropy($0.baseAddress, $0.count) })
        try vm.memory.write(generation, at: MemoryMap.generationID, "generation identifier")
        for (processor, identity) in zip(processors, identities) {
            try processor.setIdentity(identity)
            try processor.setModelRegisters()
            try processor.setLocalInterrupts()
        }
        // The others wait for the guest to start them.
        try processors[0].set(.linux(entry: entry, processors[0].specialRegisters()), memory: vm.memory)
        return try start()
    }

    private var configuration: ACPIConfiguration {
        ACPIConfiguration(
            cpuCount: processors.count, virtioDevices: virtio + spares.map(\.place),
            generationID: MemoryMap.generationID,
            eventGSI: Self.eventGSI, serialPort: serialPort)
    }

    private func start() throws -> UInt64 {
        try MachineSignal.install()
        let (ports, registers, onEnd) = (ports, registers, onEnd)
        let time = monotonicNanoseconds()
        for processor in processors {
            try startThread("vcpu \(processor.index)") {
                let end = processor.run(ports: ports, memory: registers)
                if let end = MachineEnd(end, processor: processor.index) { onEnd(end) }
            }
        }
        return time
    }

    /// Presses the power button: an ordinary Linux guest shuts down.
    public func pressPowerButton() { power.raise(.powerButton) }
}

extension MachineEnd {
    /// What a processor's end means for the machine; nil where it was asked for.
    init?(_ end: VCPUEnd, processor: Int) {
        switch end {
        case .stopped: return nil
        case .halted: self = .unhandled("processor \(processor) halted for good")
        case .tripleFault: self = .tripleFault(processor: processor)
        case .systemEvent(let type): self = .unhandled("KVM system event \(type)")
        case .unhandled(let reason): self = .unhandled("processor \(processor): \(reason)")
        }
    }
}

/// Tells the first caller from all others.
private final class Once: Sendable {
    private let done = Atomic<Bool>(false)
    func first() -> Bool { !done.exchange(true, ordering: .sequentiallyConsistent) }
}
