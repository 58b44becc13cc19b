import Glibc
public import LinuxSystem
import Synchronization
import Virtio

/// A virtio device over MMIO (virtio 1.2, 4.2): one page of registers, an interrupt, and a kick for each queue.
///
/// A state machine between the driver's register accesses, which come from the vCPUs' threads, and a `BackendDevice`, which is
/// driven on the loop's thread. It knows no KVM: kicks and the interrupt are eventfds.
///
/// What the driver has written of a queue is checked when the device starts, and is fixed until the reset: later writes change
/// nothing. The interrupt status always says "used buffers": the interrupt is edge-triggered and the device's own, so a driver
/// that reads the status was interrupted, and devices in other processes can signal the interrupt without this one. So the
/// acknowledgement of used buffers changes nothing, and need not leave KVM.
public final class VirtioTransport: BusDevice, @unchecked Sendable {
    public static let vendor: UInt32 = 0x544c_524d  // "MRLT"
    static let magic: UInt32 = 0x7472_6976  // "virt"
    static let version: UInt32 = 2

    /// What the driver has written, under one lock.
    struct Registers {
        var status: DeviceStatus = []
        var deviceFeaturesSelector: UInt32 = 0
        var driverFeaturesSelector: UInt32 = 0
        var driverFeatures: UInt64 = 0
        var queueSelector: UInt32 = 0
        var queues: [Queue]
        /// The slot belongs to another device: nothing that a late access does may reach the page.
        var isDetached = false
    }

    struct Queue {
        var size: UInt32 = 0
        var isReady = false
        var descriptors: UInt64 = 0
        var driver: UInt64 = 0
        var device: UInt64 = 0
        var isRunning = false
    }

    public let deviceID: UInt32
    /// Signals the guest's interrupt.
    public let interrupt: SharedDescriptor
    /// One for each queue: the driver's write of its number to `QueueNotify`.
    public let kicks: [SharedDescriptor]
    /// Entries a queue may have.
    private let maximumSize: UInt32
    let device: any BackendDevice
    private let memory: GuestMemory
    let page: RegisterPage
    private let loop: LoopTasks
    let onFailure: @Sendable (String) -> Void
    let features: UInt64
    let registers: Mutex<Registers>
    private let lines: [RingLines]
    /// Outside the lock, because the loop sets it while a vCPU waits for the loop under the lock.
    let needsReset = Atomic<Bool>(false)
    /// `detach` was called. Belongs to the loop's thread.
    private var isDetached = false

    /// - Parameters:
    ///   - deviceID: the kind of device (virtio 1.2, 5).
    ///   - page: where the driver reads.
    ///   - loop: where `device` is driven.
    ///   - maximumSize: entries a queue may have.
    ///   - onFailure: a queue could not start; called on the loop's thread.
    init(
        deviceID: UInt32, device: any BackendDevice, memory: GuestMemory, page: RegisterPage, loop: LoopTasks,
        maximumSize: UInt32 = 256, onFailure: @escaping @Sendable (String) -> Void
    ) throws(SystemError) {
        self.deviceID = deviceID
        self.device = device
        self.memory = memory
        self.page = page
        self.loop = loop
        self.maximumSize = maximumSize
        self.onFailure = onFailure
        features = device.features | RingFeatures.all.rawValue
        let interrupt = try SharedDescriptor.event()
        self.interrupt = interrupt
        var kicks: [SharedDescriptor] = []
        for _ in 0..<device.queueCount { kicks.append(try SharedDescriptor.event()) }
        self.kicks = kicks
        lines = kicks.map { _ in
            let lines = RingLines()
            lines.setCall(interrupt)
            return lines
        }
        registers = Mutex(Registers(queues: kicks.map { _ in Queue() }))
        super.init()
        describe()
        registers.withLock { show($0) }
        device.onConfigurationChange { [weak self, loop] in
            loop.post { [weak self] in self?.showConfiguration(notify: true) }
        }
        device.onQuietConfigurationChange { [weak self] in self?.showConfiguration(notify: false) }
    }

    /// The driver has started the device.
    var isStarted: Bool { page[VirtioRegister.status] & DeviceStatus.driverOK.rawValue != 0 }

    /// Raises the guest's interrupt.
    func raise() { lines.first?.interrupt() }

    /// Has a device of this process raise the guest's interrupt by `raise` instead of the eventfd.
    func raiseDirectly(by raise: @escaping @Sendable () -> Void) {
        for line in lines { line.setDirect(raise) }
    }

    /// The driver broke a ring, or the device can't go on: tells the driver that only a reset helps (virtio 1.2, 2.1.2).
    public func deviceBroke() {
        needsReset.store(true, ordering: .sequentiallyConsistent)
        page.set(DeviceStatus.needsReset.rawValue, at: VirtioRegister.status)
        page.set(InterruptStatus.configurationChange, at: VirtioRegister.interruptStatus)
        lines.first?.interrupt()
    }

    // MARK: Reading

    /// Only where KVM does not have the page as memory.
    override public func read(_ offset: UInt64, _ data: UnsafeMutableRawBufferPointer) { page.read(offset, data) }

    /// What never changes.
    private func describe() {
        page[VirtioRegister.magic] = Self.magic
        page[VirtioRegister.version] = Self.version
        page[VirtioRegister.deviceID] = deviceID
        page[VirtioRegister.vendorID] = Self.vendor
        page[VirtioRegister.interruptStatus] = InterruptStatus.usedBuffers
        for offset in stride(
            from: VirtioRegister.sharedMemoryLengthLow, through: VirtioRegister.sharedMemoryBaseHigh, by: 4)
        {
            page[offset] = .max  // there is none
        }
        page.write(device.configuration, at: VirtioRegister.configuration)
    }

    /// Has the page show the device's configuration space as it is now; on the loop's thread.
    ///
    /// The driver reads the generation, fields, and the generation again, all without an exit. It changes before and after the
    /// fields, so that a driver that saw some old and some new ones reads them again, or is told by the interrupt that follows
    /// (virtio 1.2, 2.5.3).
    func showConfiguration(notify: Bool) {
        if isDetached { return }
        page[VirtioRegister.configurationGeneration] &+= 1
        page.write(device.configuration, at: VirtioRegister.configuration)
        page[VirtioRegister.configurationGeneration] &+= 1
        guard notify, isStarted else { return }
        page.set(InterruptStatus.configurationChange, at: VirtioRegister.interruptStatus)
        lines.first?.interrupt()
    }

    /// Has the page show what the driver's writes have changed.
    func show(_ registers: Registers) {
        let selector = registers.deviceFeaturesSelector
        page[VirtioRegister.deviceFeatures] =
            selector < 2 ? UInt32(truncatingIfNeeded: features >> (32 * UInt64(selector))) : 0
        let queue = registers.queueSelector < UInt32(registers.queues.count) ? Int(registers.queueSelector) : nil
        page[VirtioRegister.queueSizeMaximum] = queue == nil ? 0 : maximumSize
        page[VirtioRegister.queueReady] = queue.map { registers.queues[$0].isReady ? 1 : 0 } ?? 0
        page[VirtioRegister.status] = registers.status.rawValue
        // The device may break at any time, without the lock: the second of the two sets the bit.
        if needsReset.load(ordering: .sequentiallyConsistent) {
            page.set(DeviceStatus.needsReset.rawValue, at: VirtioRegister.status)
        }
    }

    // MARK: Writing

    override public func write(_ offset: UInt64, _ data: UnsafeRawBufferPointer) {
        if offset >= VirtioRegister.configuration { return writeConfiguration(offset, data) }
        guard data.count == 4, offset % 4 == 0 else { return }
        let value = UInt32(littleEndian: data.loadUnaligned(as: UInt32.self))
        switch offset {
        case VirtioRegister.interruptAcknowledge:
            // "Used buffers" stays as it is: see above.
            registers.withLock { registers in
                if registers.isDetached { return }
                page.clear(value & InterruptStatus.configurationChange, at: VirtioRegister.interruptStatus)
            }
        case VirtioRegister.queueNotify:
            // Only where KVM does not signal the kick by itself.
            if value < UInt32(kicks.count) { kicks[Int(value)].signal() }
        default:
            registers.withLock { registers in
                if registers.isDetached { return }
                if offset == VirtioRegister.status {
                    writeStatus(value, &registers)
                } else {
                    store(offset, value, &registers)
                }
                show(registers)
            }
        }
    }

    /// Fields have 1, 2 or 4 bytes; a driver writes one of 8 as two (4.2.2.2).
    private func writeConfiguration(_ offset: UInt64, _ data: UnsafeRawBufferPointer) {
        guard [1, 2, 4].contains(data.count), offset % UInt64(data.count) == 0 else { return }
        let bytes = Array(data)
        registers.withLock { registers in
            if registers.isDetached { return }
            onLoop { [self] in
                device.writeConfiguration(bytes, at: Int(offset - VirtioRegister.configuration))
                showConfiguration(notify: false)
                return true
            }
        }
    }

    private func store(_ offset: UInt64, _ value: UInt32, _ registers: inout Registers) {
        switch offset {
        case VirtioRegister.deviceFeaturesSelector: registers.deviceFeaturesSelector = value
        case VirtioRegister.driverFeaturesSelector: registers.driverFeaturesSelector = value
        case VirtioRegister.queueSelector: registers.queueSelector = value
        case VirtioRegister.driverFeatures:
            // Until the features are agreed on (virtio 1.2, 3.1.1, step 4).
            guard registers.status == [.acknowledge, .driver], registers.driverFeaturesSelector < 2 else { return }
            let shift = 32 * UInt64(registers.driverFeaturesSelector)
            registers.driverFeatures = registers.driverFeatures & ~(0xffff_ffff << shift) | UInt64(value) << shift
        default:
            // A queue is set up between the agreement on features and the start.
            guard registers.status == [.acknowledge, .driver, .featuresOK],
                registers.queueSelector < UInt32(registers.queues.count)
            else { return }
            store(offset, value, &registers.queues[Int(registers.queueSelector)])
        }
    }

    private func store(_ offset: UInt64, _ value: UInt32, _ queue: inout Queue) {
        func low(_ old: UInt64) -> UInt64 { old & ~0xffff_ffff | UInt64(value) }
        func high(_ old: UInt64) -> UInt64 { old & 0xffff_ffff | UInt64(value) << 32 }
        if offset == VirtioRegister.queueReady {
            queue.isReady = value == 1
            return
        }
        if queue.isReady { return }
        switch offset {
        case VirtioRegister.queueSize: queue.size = value
        case VirtioRegister.descriptorsLow: queue.descriptors = low(queue.descriptors)
        case VirtioRegister.descriptorsHigh: queue.descriptors = high(queue.descriptors)
        case VirtioRegister.driverLow: queue.driver = low(queue.driver)
        case VirtioRegister.driverHigh: queue.driver = high(queue.driver)
        case VirtioRegister.deviceLow: queue.device = low(queue.device)
        case VirtioRegister.deviceHigh: queue.device = high(queue.device)
        default: break
        }
    }

    private func writeStatus(_ value: UInt32, _ registers: inout Registers) {
        switch registers.status.transition(to: value) {
        case .reset: reset(&registers)
        case .failed: registers.status.insert(.failed)
        case .refused: break
        case .step(let status):
            if status.contains(.driverOK) {
                start(&registers)
            } else if status.contains(.featuresOK) {
                // Not set: the driver reads it back and knows (virtio 1.2, 2.2.2).
                let accepted = registers.driverFeatures
                guard accepted & ~features == 0, accepted & RingFeatures.version1.rawValue != 0 else { return }
            }
            registers.status = status
        }
    }

    // MARK: The device

    /// Starts every queue that is ready, all in one task of the loop.
    private func start(_ registers: inout Registers) {
        let ready = registers.queues.indices.filter { registers.queues[$0].isReady }
        let setups = ready.map { setup($0, registers) }
        let work = StartWork(device: device, setups: Array(zip(ready, setups)), onFailure: onFailure)
        for index in ready { registers.queues[index].isRunning = true }
        onLoop { work.run() }
    }

    /// Runs `work` on the loop's thread. Where it can't be done, or says false, only a reset helps.
    private func onLoop(_ work: @escaping @Sendable () -> Bool) {
        do {
            if try !loop.sync(work) { deviceBroke() }
        } catch {
            deviceBroke()
        }
    }

    func setup(
        _ index: Int, _ registers: Registers, position: UInt16 = 0, isFresh: Bool = true
    ) -> QueueSetup {
        let queue = registers.queues[index]
        return QueueSetup(
            geometry: QueueGeometry(
                size: queue.size, descriptorTable: queue.descriptors, availableRing: queue.driver,
                usedRing: queue.device),
            memory: memory, features: RingFeatures(rawValue: registers.driverFeatures), position: position,
            isFresh: isFresh, kick: kicks[index], lines: lines[index])
    }

    /// Stops the device for good, for a slot that is to be free. On the loop's thread.
    ///
    /// - Returns: false where a vCPU's access is under way, which may wait for the loop: then nothing is done.
    func detach() -> Bool {
        let isDone: Void? = registers.withLockIfAvailable { registers in
            for queue in registers.queues.indices where registers.queues[queue].isRunning {
                _ = device.stop(queue: queue)
            }
            registers = Registers(queues: registers.queues.map { _ in Queue() }, isDetached: true)
            isDetached = true
        }
        return isDone != nil
    }

    private func reset(_ registers: inout Registers) {
        let running = registers.queues.indices.filter { registers.queues[$0].isRunning }
        if !running.isEmpty {
            let work = StopWork(device: device, queues: running)
            onLoop { work.run() }
        }
        registers = Registers(queues: registers.queues.map { _ in Queue() })
        needsReset.store(false, ordering: .sequentiallyConsistent)
        page.clear(InterruptStatus.configurationChange, at: VirtioRegister.interruptStatus)
    }
}
