import Glibc
import LinuxSystem
import Synchronization
import Testing

@testable import Machine
@testable import Virtio

/// A device that remembers what the transport asked of it, and serves real rings.
private final class FakeDevice: BackendDevice, @unchecked Sendable {
    let features: UInt64 = 1 << 5
    let queueCount = 2
    let ownsConfiguration = true
    let space = Mutex<[UInt8]>([1, 2, 3, 4, 5, 6])
    let changed = Mutex<(@Sendable () -> Void)?>(nil)
    /// Shows the space; called on the loop's thread only.
    private var show: () -> Void = {}
    /// The first byte of the space is the state.
    var savedState: [UInt8] { space.withLock { [$0[0]] } }
    var configuration: [UInt8] { space.withLock { $0 } }
    let log = Mutex<[String]>([])
    let rings = [Virtqueue(maximumSize: 256), Virtqueue(maximumSize: 256)]

    func onConfigurationChange(_ changed: @escaping @Sendable () -> Void) { self.changed.withLock { $0 = changed } }

    func onQuietConfigurationChange(_ show: @escaping () -> Void) { self.show = show }

    func restore(savedState state: [UInt8]) throws(DeviceStateError) {
        guard state.count == 1 else { throw DeviceStateError("\(state.count) bytes") }
        space.withLock { $0[0] = state[0] }
    }

    func writeConfiguration(_ bytes: [UInt8], at offset: Int) {
        log.withLock { $0.append("write \(bytes) at \(offset)") }
        space.withLock {
            if offset + bytes.count <= $0.count { $0.replaceSubrange(offset..<offset + bytes.count, with: bytes) }
        }
    }

    /// Changes the space by itself.
    func change(_ bytes: [UInt8]) {
        space.withLock { $0 = bytes }
        changed.withLock { $0 }?()
    }

    /// Changes the space without telling the driver; on the loop's thread.
    func changeQuietly(_ bytes: [UInt8]) {
        space.withLock { $0 = bytes }
        show()
    }

    func start(queue: Int, _ setup: QueueSetup) throws {
        log.withLock { $0.append("start \(queue)") }
        try rings[queue].start(
            setup.geometry, memory: setup.memory, features: setup.features, position: setup.position)
    }

    func stop(queue: Int) -> UInt16 {
        log.withLock { $0.append("stop \(queue)") }
        rings[queue].stop()
        return 0
    }
}

/// A driver's accesses to one transport, with a loop on a thread of its own.
private final class Bench {
    let device = FakeDevice()
    let transport: VirtioTransport
    private let loop: EventLoop
    let tasks: LoopTasks
    private let memory: GuestMemory
    private let registers = UnsafeMutableRawPointer.allocate(byteCount: RegisterPage.size, alignment: 4096)

    init() throws {
        registers.initializeMemory(as: UInt8.self, repeating: 0, count: RegisterPage.size)
        let map = try MemoryMap(size: 64 << 20)
        let file = try OwnedDescriptor.memory("transport test", size: Int64(map.size))
        memory = try map.map(file: file.raw)
        let loop = try EventLoop()
        self.loop = loop
        let tasks = try LoopTasks(loop)
        self.tasks = tasks
        try startThread("loop") {
            do { try loop.run() } catch { Issue.record("\(error)") }
            withExtendedLifetime(tasks) {}
        }
        let sink = Sink()
        transport = try VirtioTransport(
            deviceID: 4, device: device, memory: memory, page: RegisterPage(registers), loop: tasks,
            onFailure: { sink.add($0) })
        self.sink = sink
    }

    final class Sink: Sendable {
        let lines = Mutex<[String]>([])
        func add(_ line: String) { lines.withLock { $0.append(line) } }
    }
    let sink: Sink

    deinit {
        loop.stop()
        registers.deallocate()
    }

    func read(_ offset: UInt64, size: Int = 4) -> UInt32 {
        var bytes = [UInt8](repeating: 0, count: 8)
        bytes.withUnsafeMutableBytes {
            transport.read(offset, UnsafeMutableRawBufferPointer(rebasing: $0[..<size]))
        }
        return (0..<4).reduce(0) { $0 | UInt32(bytes[$1]) << (8 * UInt32($1)) }
    }

    func write(_ offset: UInt64, _ value: UInt32) {
        write(offset, bytes: withUnsafeBytes(of: value.littleEndian, Array.init))
    }

    func write(_ offset: UInt64, bytes: [UInt8]) { bytes.withUnsafeBytes { transport.write(offset, $0) } }

    /// Takes the interrupts that came; whether there were some.
    func takeInterrupt() -> Bool {
        var value: UInt64 = 0
        return Glibc.read(transport.interrupt.raw, &value, 8) == 8
    }

    var status: UInt32 { read(VirtioRegister.status) }

    func setFeatures(_ features: UInt64) {
        for half: UInt32 in [0, 1] {
            write(VirtioRegister.driverFeaturesSelector, half)
            write(VirtioRegister.driverFeatures, UInt32(truncatingIfNeeded: features >> (32 * UInt64(half))))
        }
    }

    func setQueue(_ queue: UInt32, size: UInt32 = 64, at address: UInt64? = nil) {
        write(VirtioRegister.queueSelector, queue)
        write(VirtioRegister.queueSize, size)
        let address = address ?? 0x20_0000 + UInt64(queue) << 16
        for (low, offset) in [
            (VirtioRegister.descriptorsLow, 0), (VirtioRegister.driverLow, 0x4000), (VirtioRegister.deviceLow, 0x8000),
        ] as [(UInt64, UInt64)] {
            write(low, UInt32(truncatingIfNeeded: address + offset))
            write(low + 4, UInt32((address + offset) >> 32))
        }
        write(VirtioRegister.queueReady, 1)
    }

    func start(queues: [UInt32] = [0, 1]) {
        for value: UInt32 in [0, 1, 3] { write(VirtioRegister.status, value) }
        setFeatures(1 << 32)
        write(VirtioRegister.status, 11)
        for queue in queues { setQueue(queue) }
        write(VirtioRegister.status, 15)
    }
}

@Suite struct TransportTests {
    @Test func aDriverFindsTheDevice() throws {
        let bench = try Bench()
        #expect(bench.read(VirtioRegister.magic) == 0x7472_6976)
        #expect(bench.read(VirtioRegister.version) == 2)
        #expect(bench.read(VirtioRegister.deviceID) == 4)
        bench.write(VirtioRegister.deviceFeaturesSelector, 1)
        #expect(bench.read(VirtioRegister.deviceFeatures) & 1 == 1)
        bench.write(VirtioRegister.deviceFeaturesSelector, 2)
        #expect(bench.read(VirtioRegister.deviceFeatures) == 0)
        #expect(bench.read(VirtioRegister.configuration) == 0x0403_0201)
        #expect(bench.read(VirtioRegister.configuration + 4) == 0x0605)
        #expect(bench.read(VirtioRegister.configuration + 5, size: 1) == 6)
        #expect(bench.read(0xffc) == 0)
    }

    @Test func theStatusHasOneWayOnly() throws {
        let bench = try Bench()
        for wrong: UInt32 in [2, 3, 4, 8, 11, 15, 64, 0xffff_ff7f] {
            bench.write(VirtioRegister.status, wrong)
            #expect(bench.status == 0, "after \(wrong)")
        }
        bench.start()
        #expect(bench.status == 15)
        #expect(bench.device.log.withLock { $0 } == ["start 0", "start 1"])
        for wrong: UInt32 in [1, 3, 11, 15, 79] {
            bench.write(VirtioRegister.status, wrong)
            #expect(bench.status == 15)
        }
        bench.write(VirtioRegister.status, 15 | 128)
        #expect(bench.status == 143)
        bench.write(VirtioRegister.status, 15)
        #expect(bench.status == 143)
        bench.write(VirtioRegister.status, 0)
        #expect(bench.status == 0)
        #expect(bench.device.log.withLock { $0 } == ["start 0", "start 1", "stop 0", "stop 1"])
    }

    @Test(arguments: [0, 1 << 5, 1 << 33 | 1 << 32, 1 << 63 | 1 << 32] as [UInt64])
    func featuresThatCannotBeAreNotAgreedOn(features: UInt64) throws {
        let bench = try Bench()
        for value: UInt32 in [1, 3] { bench.write(VirtioRegister.status, value) }
        bench.setFeatures(features)
        bench.write(VirtioRegister.status, 11)
        #expect(bench.status == 3)
    }

    @Test func aRunningQueueDoesNotChange() throws {
        let bench = try Bench()
        bench.start()
        // CVE-2026-5747: a queue's size, changed while it runs.
        bench.setQueue(0, size: 32768, at: 0xffff_ffff_0000)
        bench.write(VirtioRegister.queueReady, 0)
        #expect(bench.read(VirtioRegister.queueReady) == 1)
        #expect(bench.device.rings[0].isRunning)
        #expect(bench.device.rings[0].size == 64)
        bench.setFeatures(0)
        bench.write(VirtioRegister.status, 0)
        #expect(!bench.device.rings[0].isRunning)
        #expect(bench.read(VirtioRegister.queueReady) == 0)
    }

    @Test func aQueueThatCannotBeAsksForAReset() throws {
        for (size, address) in [(65, nil), (0, nil), (512, nil), (64, 1 << 40), (64, 0x20_0004)] as [(UInt32, UInt64?)]
        {
            let bench = try Bench()
            for value: UInt32 in [1, 3] { bench.write(VirtioRegister.status, value) }
            bench.setFeatures(1 << 32)
            bench.write(VirtioRegister.status, 11)
            bench.setQueue(0, size: size, at: address)
            bench.write(VirtioRegister.status, 15)
            #expect(bench.status == 15 | 64, "size \(size), address \(address ?? 0)")
            #expect(bench.read(VirtioRegister.interruptStatus) == 3)
            bench.write(VirtioRegister.interruptAcknowledge, 2)
            #expect(bench.read(VirtioRegister.interruptStatus) == 1)
            bench.write(VirtioRegister.interruptAcknowledge, 1)
            #expect(bench.read(VirtioRegister.interruptStatus) == 1)
            #expect(bench.sink.lines.withLock { $0.count } == 1)
            // And after it the device works again.
            bench.start()
            #expect(bench.status == 15)
        }
    }

    /// A change reaches the driver: the space, its generation, the status's second bit, and an interrupt.
    @Test func aChangedConfigurationIsReported() throws {
        let bench = try Bench()
        let generation = bench.read(VirtioRegister.configurationGeneration)
        // A driver that has not started the device sees the change, and gets no interrupt.
        bench.device.change([9, 2, 3, 4, 5, 6])
        try bench.tasks.sync {}
        #expect(bench.read(VirtioRegister.configuration) == 0x0403_0209)
        #expect(bench.read(VirtioRegister.configurationGeneration) != generation)
        #expect(bench.read(VirtioRegister.interruptStatus) == 1)
        #expect(!bench.takeInterrupt())
        bench.start()
        let started = bench.read(VirtioRegister.configurationGeneration)
        bench.device.change([9, 2, 3, 4, 5, 7])
        try bench.tasks.sync {}
        #expect(bench.read(VirtioRegister.configuration + 4) == 0x0705)
        #expect(bench.read(VirtioRegister.configurationGeneration) != started)
        #expect(bench.read(VirtioRegister.interruptStatus) == 3)
        #expect(bench.takeInterrupt())
        bench.write(VirtioRegister.interruptAcknowledge, 3)
        #expect(bench.read(VirtioRegister.interruptStatus) == 1)
    }

    /// The driver reads the new space, and is not interrupted.
    @Test func aQuietChangeIsOnlyShown() throws {
        let bench = try Bench()
        bench.start()
        let generation = bench.read(VirtioRegister.configurationGeneration)
        let isShownAtOnce = try bench.tasks.sync { [device = bench.device, transport = bench.transport] in
            device.changeQuietly([1, 2, 3, 4, 5, 9])
            return transport.page[VirtioRegister.configuration + 4] == 0x0905
        }
        #expect(isShownAtOnce)
        #expect(bench.read(VirtioRegister.configurationGeneration) != generation)
        #expect(bench.read(VirtioRegister.interruptStatus) == 1)
        #expect(!bench.takeInterrupt())
    }

    /// The state of a device is saved, and what it makes of the configuration space is shown when it is restored.
    @Test func aDevicesStateIsRestored() throws {
        let first = try Bench()
        first.start()
        first.device.change([7, 2, 3, 4, 5, 6])
        let state = try first.tasks.sync { [transport = first.transport] in try? transport.suspend(slot: 2) }
        let saved = try #require(state)
        #expect(saved.deviceState == [7])
        let second = try Bench()
        func restore(_ state: SlotState) throws -> String {
            try second.tasks.sync { [transport = second.transport] in
                do {
                    try transport.restore(state)
                    return ""
                } catch {
                    return "\(error)"
                }
            }
        }
        #expect(try restore(saved) == "")
        #expect(second.read(VirtioRegister.configuration) == 0x0403_0207)
        #expect(second.status == 15)
        var other = saved
        other.deviceState = [1, 2]
        #expect(try restore(other) == "MMIO slot 2: 2 bytes")
        #expect(second.read(VirtioRegister.configuration) == 0x0403_0207)
    }

    @Test func whatTheDriverWritesReachesTheDevice() throws {
        let bench = try Bench()
        bench.start()
        bench.write(VirtioRegister.configuration, bytes: [0xa, 0xb, 0xc, 0xd])
        bench.write(VirtioRegister.configuration + 4, bytes: [0xe])
        bench.write(VirtioRegister.configuration + 4, bytes: [1, 2])
        // None of these is an access that a driver may make.
        bench.write(VirtioRegister.configuration + 1, bytes: [1, 2])
        bench.write(VirtioRegister.configuration, bytes: [1, 2, 3])
        bench.write(VirtioRegister.configuration, bytes: [1, 2, 3, 4, 5, 6, 7, 8])
        #expect(
            bench.device.log.withLock { $0.dropFirst(2) } == [
                "write [10, 11, 12, 13] at 0", "write [14] at 4", "write [1, 2] at 4",
            ])
        #expect(bench.read(VirtioRegister.configuration) == 0x0d0c_0b0a)
        #expect(bench.read(VirtioRegister.configuration + 4) == 0x0201)
        // The driver knows of its own changes.
        #expect(bench.read(VirtioRegister.interruptStatus) == 1)
        #expect(!bench.takeInterrupt())
    }

    @Test func aDetachedDeviceIsStoppedForGood() throws {
        let bench = try Bench()
        bench.start()
        let isDetached = try bench.tasks.sync { [transport = bench.transport] in transport.detach() }
        #expect(isDetached)
        #expect(bench.device.log.withLock { $0.suffix(2) } == ["stop 0", "stop 1"])
        // The page is another device's from now on: nothing of a late access, nor of the device, changes it.
        let before = (0..<0x80).map { bench.read(UInt64($0) * 4) }
        bench.start()
        bench.write(VirtioRegister.status, 0)
        bench.write(VirtioRegister.configuration, 0)
        bench.device.change([0, 0, 0, 0, 0, 0])
        try bench.tasks.sync {}
        #expect((0..<0x80).map { bench.read(UInt64($0) * 4) } == before)
        #expect(bench.device.log.withLock { $0.count } == 4)
    }

    @Test func aKickSignalsTheQueuesEventfd() throws {
        let bench = try Bench()
        bench.write(VirtioRegister.queueNotify, 1)
        bench.write(VirtioRegister.queueNotify, 2)
        var value: UInt64 = 0
        #expect(Glibc.read(bench.transport.kicks[1].raw, &value, 8) == 8)
        #expect(Glibc.read(bench.transport.kicks[0].raw, &value, 8) == -1)
    }

    /// Accesses of chance, with those that lead somewhere more likely: whatever comes, the status is one of the table's, and
    /// a queue runs only in a started device.
    @Test(.timeLimit(.minutes(1))) func whateverADriverWritesTheStateIsSound() throws {
        let bench = try Bench()
        var random = SystemRandomNumberGenerator()
        let statuses: Set<UInt32> = [0, 1, 3, 11, 15]
        let end = ContinuousClock.now + .seconds(5)
        var starts = 0
        while ContinuousClock.now < end {
            for _ in 0..<200 {
                switch UInt8.random(in: 0..<8, using: &random) {
                case 0: bench.write(UInt64.random(in: 0..<0x40, using: &random) * 4, random.next())
                case 1:
                    bench.write(VirtioRegister.status, [0, 1, 3, 11, 15, 128, 64].randomElement(using: &random) ?? 0)
                case 2: bench.setFeatures(Bool.random(using: &random) ? 1 << 32 : random.next())
                case 3: bench.setQueue(UInt32.random(in: 0..<3, using: &random), size: random.next())
                case 4: bench.setQueue(UInt32.random(in: 0..<2, using: &random))
                case 5: bench.start()
                case 6: bench.setQueue(0, at: random.next())
                default:
                    _ = bench.read(
                        UInt64.random(in: 0..<0x400, using: &random), size: [1, 2, 4, 8][Int.random(in: 0..<4)])
                }
                let status = bench.status & ~(64 | 128)
                #expect(statuses.contains(status))
                if status & 4 == 0 { #expect(!bench.device.rings[0].isRunning) }
                if status == 15 { starts += 1 }
            }
        }
        #expect(starts > 100)
    }
}
