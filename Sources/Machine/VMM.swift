public import LinuxSystem
public import VMMControl

/// A whole machine: vCPUs, buses, devices and what connects them.
///
/// Devices are added first. `boot` fixes the buses and starts the vCPUs' threads; devices that come later take a free MMIO slot.
/// Belongs to the loop's thread.
public final class VMM: @unchecked Sendable {
    /// How many vCPUs a machine may have.
    public static let vcpuCounts = 1...32
    /// How many MMIO slots a booted machine has for devices that come later, at most.
    private static let hotplugSlots = 12
    /// Numbers of devices (virtio 1.2, 5).
    static let networkID: UInt32 = 1
    static let blockID: UInt32 = 2
    private static let consoleID: UInt32 = 3
    /// How often a guest whose console has not started is inspected, nanoseconds.
    private static let inspectionInterval: UInt64 = 500_000_000

    public let vm: VM
    let loop: LoopTasks
    let lifecycle = MachineLifecycle()
    /// All slots; the guest is told of those that are taken at the boot and of some more.
    let slots: [MMIOSlot]
    /// The booted machine's free slots that the guest knows, in the order in which they are taken.
    var freeSlots: [MMIOSlot] = []
    let threads: VCPUThreads
    /// How many vCPUs the guest can have while it runs.
    let maximumVCPUs: Int
    /// vCPUs that KVM has: it can't let go of one.
    var madeVCPUs: Int
    /// The part of the hotplug memory that KVM has, bytes, in so many slots.
    public internal(set) var hotplugBytes: UInt64 = 0
    var hotplugSlots: UInt32 = 0
    /// Whether the guest sees the CPU's virtualization.
    let cpu: GuestCPU
    let platform: Platform
    let onEnd: @Sendable (MachineEnd) -> Void
    /// What the guest sees as read-only memory; nil: nothing.
    var rootImage: RootImage?
    /// Gets the driver's acknowledgements of used buffers, which change nothing: nothing reads it.
    let acknowledgements: EventDescriptor
    /// Monotonic time of the next inspection, nanoseconds; nil: the console has started.
    private var nextInspection: UInt64?

    /// What the machine does now.
    public var state: MachineState { lifecycle.state }

    /// Makes a machine without devices.
    ///
    /// - Parameters:
    ///   - memoryFile: a file of `map.fileSize` bytes.
    ///   - isPrivate: what the guest writes is not in the file.
    ///   - vcpus: how many, in `vcpuCounts`.
    ///   - maximumVCPUs: how many it can have while it runs.
    ///   - cpu: what the guest sees of the host's CPU.
    ///   - loop: of the thread that the machine belongs to.
    ///   - onEnd: the machine has ended by itself; called once, on the loop's thread.
    /// - Throws: `MachineError`, or `SystemError` where KVM refuses.
    public init(
        _ kvm: KVM, map: MemoryMap, memoryFile: SharedDescriptor, isPrivate: Bool = false, vcpus count: Int,
        maximumVCPUs: Int? = nil, cpu: GuestCPU = GuestCPU(), loop: LoopTasks,
        onEnd: @escaping @Sendable (MachineEnd) -> Void
    ) throws {
        guard Self.vcpuCounts.contains(count) else {
            throw MachineError("\(count) vCPUs: not 1 to \(Self.vcpuCounts.upperBound)")
        }
        let maximum = maximumVCPUs ?? count
        guard (count...Self.vcpuCounts.upperBound).contains(maximum) else {
            throw MachineError("at most \(maximum) vCPUs: not \(count) to \(Self.vcpuCounts.upperBound)")
        }
        (self.maximumVCPUs, madeVCPUs) = (maximum, count)
        self.loop = loop
        self.cpu = cpu
        acknowledgements = try EventDescriptor()
        let vm = try VM(kvm, map: map, memoryFile: memoryFile, isPrivate: isPrivate)
        self.vm = vm
        let vcpus = try (0..<count).map { try VCPU(vm, index: $0) }
        let threads = VCPUThreads(vcpus)
        self.threads = threads
        let lifecycle = lifecycle
        let registers = vm.registers.base
        let end: @Sendable (MachineEnd) -> Void = { end in
            // The first end counts: it stops the other vCPUs, and the calling one too.
            do { try lifecycle.apply(.end(end)) } catch { return }
            threads.stop()
            loop.post { onEnd(end) }
        }
        self.onEnd = end
        platform = try Platform(vm, vcpus, maximumVCPUs: maximum, cpu: cpu, onEnd: end) { threads.eject($0) }
        slots = Platform.slotInterrupts.enumerated().map { index, gsi in
            MMIOSlot(
                index: index, address: MemoryMap.virtioBase + UInt64(index) * MemoryMap.virtioPage, gsi: gsi,
                page: RegisterPage(registers + index * RegisterPage.size))
        }
    }

    deinit { threads.stop() }

    /// Adds a serial port that sends to `output`, without waiting.
    ///
    /// - Parameter output: a socket.
    /// - Throws: `MachineError` where the machine has been booted, or has a serial port.
    public func addSerialPort(output: SharedDescriptor) throws {
        try lifecycle.require("add serial port") { $0 == .created }
        try platform.addSerialPort(output: output)
    }

    // MARK: Running

    /// Loads Linux and starts the vCPUs.
    ///
    /// - Returns: the monotonic time in nanoseconds just before the first vCPU entered the guest.
    /// - Throws: `MachineError` where the machine has been booted, or the image does not fit it.
    public func boot(_ image: BootImage) throws -> UInt64 {
        try lifecycle.require("boot") { $0 == .created }
        let taken = slots.prefix { $0.transport != nil }
        freeSlots = Array(slots[taken.endIndex...].prefix(Self.hotplugSlots))
        let announced = Array(taken + freeSlots)
        try platform.prepareBoot(image, slots: announced)
        let time = try start(announced)
        nextInspection = time + Self.inspectionInterval
        return time
    }

    /// Starts the vCPUs.
    ///
    /// - Parameter announced: the slots that the guest knows.
    /// - Returns: as `boot`.
    func start(_ announced: [MMIOSlot]) throws -> UInt64 {
        var buses = Buses(ports: platform.ports)
        for slot in announced {
            try buses.memory.add(slot, at: slot.address..<slot.address + MemoryMap.virtioPage)
        }
        if let rootImage { try buses.memory.add(rootImage, at: rootImage.range) }
        try lifecycle.apply(.boot)
        let time = monotonicNanoseconds()
        let (onEnd, vm) = (onEnd, vm)
        do {
            try threads.start(
                buses,
                onEnd: { vcpu, end in
                    // The vCPU's descriptor does not keep this process's mappings.
                    withExtendedLifetime(vm) { if let end = MachineEnd(end, vcpu: vcpu) { onEnd(end) } }
                },
                onDead: { onEnd(.halted(vcpu: $0, $1)) })
        } catch {
            stop()
            throw error
        }
        return time
    }

    /// Pauses the vCPUs. A vCPU may wait for the loop, so this does not wait for them.
    ///
    /// - Parameter done: called on the loop's thread when no vCPU is in the guest, or with the reason why that will not be.
    /// - Throws: `MachineError` with the state's name where the machine is not running.
    public func pause(_ done: @escaping @Sendable (Result<Void, MachineError>) -> Void) throws(MachineError) {
        try lifecycle.apply(.pause)
        threads.park { [lifecycle, loop] areParked in
            loop.post {
                // The machine may have ended meanwhile.
                if areParked, (try? lifecycle.apply(.parked)) != nil { return done(.success(())) }
                done(.failure(MachineError("pause: the machine is \(lifecycle.state)")))
            }
        }
    }

    /// Has the paused vCPUs go on.
    ///
    /// - Throws: `MachineError` with the state's name where the machine is not paused.
    public func resume() throws(MachineError) {
        try lifecycle.apply(.resume)
        threads.resume()
    }

    /// Stops the vCPUs for good, in any state. Does not wait for their threads.
    public func stop() {
        do { try lifecycle.apply(.stop) } catch { preconditionFailure("\(error)") }
        threads.stop()
    }

    /// Presses the power button: an ordinary Linux guest shuts down.
    ///
    /// - Throws: `MachineError` where the machine has not been booted, or has ended.
    public func pressPowerButton() throws(MachineError) {
        try lifecycle.require("power button", \.isBooted)
        platform.pressPowerButton()
    }

    // MARK: A guest that dies early

    /// How long the loop may sleep: milliseconds, -1: without limit.
    public var timeout: Int32 {
        guard let nextInspection, state == .running else { return -1 }
        let now = monotonicNanoseconds()
        return nextInspection <= now ? 0 : Int32(clamping: (nextInspection - now) / 1_000_000 + 1)
    }

    /// Does what is due after each round of the loop: a guest that has not started its console yet may have halted for good,
    /// and nothing else would say so.
    public func afterRound() {
        guard let due = nextInspection, state == .running, due <= monotonicNanoseconds() else { return }
        if slots.contains(where: { $0.transport.map { $0.deviceID == Self.consoleID && $0.isStarted } ?? false }) {
            nextInspection = nil
            return
        }
        nextInspection = monotonicNanoseconds() + Self.inspectionInterval
        threads.inspect()
    }
}
