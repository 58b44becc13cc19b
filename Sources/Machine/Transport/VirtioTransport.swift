import Glibc
public import LinuxSystem
import Synchronization
import Virtio

/// A virtio device over MMIO (virtio 1.2, 4.2): one page of registers, an interrupt, and a kick for each queue.
///
/// A state machine between the driver's register accesses, which come from the processors' threads, and a `BackendDevice`,
/// which is driven on the loop's thread. It knows no KVM: kicks and the interrupt are eventfds.
///
/// What the driver has said of a queue is checked when the device starts and holds until the reset: later writes change
/// nothing. The interrupt status always says "used buffers": the interrupt is edge-triggered and the device's own, so
/// whoever asks was interrupted, and devices in other processes can signal it without a word to this one. So its
/// acknowledgement changes nothing, and need not leave KVM.
public final class VirtioTransport: BusDevice, @unchecked Sendable {
    public static let vendor: UInt32 = 0x544c_524d  // "MRLT"
    static let magic: UInt32 = 0x7472_6976  // "virt"
    static let version: UInt32 = 2

    /// What the driver has written, under one lock.
    private struct Registers {
        var status: DeviceStatus = []
        var deviceFeaturesSelector: UInt32 = 0
        var driverFeaturesSelector: UInt32 = 0
        var driverFeatures: UInt64 = 0
        var queueSelector: UInt32 = 0
        var queues: [Queue]
    }

    private struct Queue {
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
    private let device: any BackendDevice
    private let memory: GuestMemory
    private let page: RegisterPage
    private let loop: LoopTasks
    private let onFailure: @Sendable (String) -> Void
    private let features: UInt64
    private let registers: Mutex<Registers>
    private let lines: [RingLines]
    /// Outside the lock, because the loop sets them while a processor waits for the loop under it.
    private let needsReset = Atomic<Bool>(false)

    /// - Parameters:
    ///   - deviceID: the kind of device (virtio 1.2, 5).
    ///   - page: where the driver reads.
    ///   - loop: where `device` is driven.
    ///   - maximumSize: entries a queue may have.
    ///   - onFailure: a queue could not start; told on the loop's thread.
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
    }

    /// Has a device of this process raise the guest's interrupt by `raise`, and not by the eventfd.
    func raiseDirectly(by raise: @escaping @Sendable () -> Void) {
        for line in lines { line.setDirect(raise) }
    }

    /// The driver broke a ring, or the device can't go on: the driver is told that only a reset helps (virtio 1.2, 2.1.2).
    public func deviceBroke() {
        needsReset.store(true, ordering: .sequentiallyConsistent)
        page.set(DeviceStatus.needsReset.rawValue, at: VirtioRegister.status)
        page.set(2, at: VirtioRegister.interruptStatus)
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
        page[VirtioRegister.interruptStatus] = 1
        for offset in stride(
            from: VirtioRegister.sharedMemoryLengthLow, through: VirtioRegister.sharedMemoryBaseHigh, by: 4)
        {
            page[offset] = .max  // there is none
        }
        page.write(device.configuration, at: VirtioRegister.configuration)
    }

    /// Has the page show what the driver's writes have changed.
    private func show(_ registers: Registers) {
        let selector = registers.deviceFeaturesSelector
        page[VirtioRegister.deviceFeatures] =
            selector < 2 ? UInt32(truncatingIfNeeded: features >> (32 * UInt64(selector))) : 0
        let queue = registers.queueSelector < UInt32(registers.queues.count) ? Int(registers.queueSelector) : nil
        page[VirtioRegister.queueSizeMaximum] = queue == nil ? 0 : maximumSize
        page[VirtioRegister.queueReady] = queue.map { registers.queues[$0].isReady ? 1 : 0 } ?? 0
        page[VirtioRegister.status] = registers.status.rawValue
        // The device may break at any time, without the lock: whoever comes second sets the bit.
        if needsReset.load(ordering: .sequentiallyConsistent) {
            page.set(DeviceStatus.needsReset.rawValue, at: VirtioRegister.status)
        }
    }

    // MARK: Writing

    override public func write(_ offset: UInt64, _ data: UnsafeRawBufferPointer) {
        // The configuration space of every device here is read-only.
        guard data.count == 4, offset % 4 == 0, offset < VirtioRegister.configuration else { return }
        let value = UInt32(littleEndian: data.loadUnaligned(as: UInt32.self))
        switch offset {
        case VirtioRegister.interruptAcknowledge:
            // The other bit stays as it is: see above.
            page.clear(value & 2, at: VirtioRegister.interruptStatus)
        case VirtioRegister.queueNotify:
            // Only where KVM does not signal the kick by itself.
            if value < UInt32(kicks.count) { kicks[Int(value)].signal() }
        default:
            registers.withLock { registers in
                if offset == VirtioRegister.status {
                    writeStatus(value, &registers)
                } else {
                    store(offset, value, &registers)
                }
                show(registers)
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
                let wanted = registers.driverFeatures
                guard wanted & ~features == 0, wanted & RingFeatures.version1.rawValue != 0 else { return }
            }
            registers.status = status
        }
    }

    // MARK: The device

    /// Starts every queue that is ready, all under one visit of the loop.
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

    private func setup(_ index: Int, _ registers: Registers) -> QueueSetup {
        let queue = registers.queues[index]
        return QueueSetup(
            geometry: QueueGeometry(
                size: queue.size, descriptorTable: queue.descriptors, availableRing: queue.driver,
                usedRing: queue.device),
            memory: memory, features: RingFeatures(rawValue: registers.driverFeatures), position: 0, isFresh: true,
            kick: kicks[index], lines: lines[index])
    }

    private func reset(_ registers: inout Registers) {
        let running = registers.queues.indices.filter { registers.queues[$0].isRunning }
        if !running.isEmpty {
            let work = StopWork(device: device, queues: running)
            onLoop { work.run() }
        }
        registers = Registers(queues: registers.queues.map { _ in Queue() })
        needsReset.store(false, ordering: .sequentiallyConsistent)
        page.clear(2, at: VirtioRegister.interruptStatus)
    }
}

/// What the loop does for a transport; the transport waits meanwhile, so nothing is touched by two threads.
private struct StartWork: @unchecked Sendable {
    let device: any BackendDevice
    let setups: [(Int, QueueSetup)]

    let onFailure: @Sendable (String) -> Void

    /// False when a queue could not start: its geometry is wrong, or the device's process does not answer.
    func run() -> Bool {
        for (queue, setup) in setups {
            do { try device.start(queue: queue, setup) } catch {
                onFailure("queue \(queue): \(error)")
                return false
            }
        }
        return true
    }
}

private struct StopWork: @unchecked Sendable {
    let device: any BackendDevice
    let queues: [Int]
    func run() -> Bool {
        for queue in queues { _ = device.stop(queue: queue) }
        return true
    }
}
