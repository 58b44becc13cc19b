import FuzzSupport
import Glibc
import LinuxSystem

@testable import Machine
@testable import Virtio

/// Storms of accesses to the registers of virtio over MMIO, with real rings behind.
final class RegistersTarget: FuzzTarget {
    private static let steps = 128
    private static let offsets: [UInt64] = [
        VirtioRegister.deviceFeaturesSelector, VirtioRegister.driverFeatures, VirtioRegister.driverFeaturesSelector,
        VirtioRegister.queueSelector, VirtioRegister.queueSize, VirtioRegister.queueReady, VirtioRegister.queueNotify,
        VirtioRegister.interruptAcknowledge, VirtioRegister.status, VirtioRegister.status,
        VirtioRegister.descriptorsLow, VirtioRegister.descriptorsHigh, VirtioRegister.driverLow,
        VirtioRegister.driverHigh, VirtioRegister.deviceLow, VirtioRegister.deviceHigh, VirtioRegister.configuration,
    ]

    private let scene: GuestScene
    private let device = RingsDevice()
    private let transport: VirtioTransport
    private let loop: EventLoop
    private let tasks: LoopTasks
    private let registers = UnsafeMutableRawPointer.allocate(byteCount: RegisterPage.size, alignment: 4096)

    init() throws {
        scene = try GuestScene()
        registers.initializeMemory(as: UInt8.self, repeating: 0, count: RegisterPage.size)
        let loop = try EventLoop()
        let tasks = try LoopTasks(loop)
        (self.loop, self.tasks) = (loop, tasks)
        transport = try VirtioTransport(
            deviceID: 4, device: device, memory: scene.guest, page: RegisterPage(registers), loop: tasks,
            onFailure: { _ in })
        try startThread("loop") {
            while true { try? loop.runOnce(timeoutMilliseconds: -1) }
        }
    }

    func run(_ input: inout Input) throws {
        scene.clear()
        var rings = [RingWriter(scene, 0, order: 4), RingWriter(scene, 1, order: 4)]
        write(VirtioRegister.status, 0)
        if input.byte() < 200 { initialize(&input, rings) }
        for _ in 0..<Self.steps where !input.isEmpty { step(&input, &rings) }
        write(VirtioRegister.status, 0)
        require(read(VirtioRegister.magic) == 0x7472_6976, "the magic has changed")
        require(read(VirtioRegister.status) == 0, "a reset leaves status \(read(VirtioRegister.status))")
        require(!device.rings.contains(where: \.isRunning), "a ring runs after a reset")
        for kick in transport.kicks { _ = consumeKick(kick.raw) }
        _ = consumeKick(transport.interrupt.raw)
    }

    /// What a driver does, so that executions get beyond it.
    private func initialize(_ input: inout Input, _ rings: [RingWriter]) {
        for value: UInt32 in [1, 3] { write(VirtioRegister.status, value) }
        for half: UInt32 in [0, 1] {
            write(VirtioRegister.driverFeaturesSelector, half)
            write(VirtioRegister.driverFeatures, half == 1 ? 1 : UInt32(input.byte()) << 28)
        }
        write(VirtioRegister.status, 11)
        for (index, ring) in rings.enumerated() {
            write(VirtioRegister.queueSelector, UInt32(index))
            write(VirtioRegister.queueSize, ring.geometry.size)
            for (register, address) in [
                (VirtioRegister.descriptorsLow, ring.geometry.descriptorTable),
                (VirtioRegister.driverLow, ring.geometry.availableRing),
                (VirtioRegister.deviceLow, ring.geometry.usedRing),
            ] {
                write(register, UInt32(truncatingIfNeeded: address))
                write(register + 4, UInt32(address >> 32))
            }
            write(VirtioRegister.queueReady, 1)
        }
        if input.byte() < 200 { write(VirtioRegister.status, 15) }
    }

    private func step(_ input: inout Input, _ rings: inout [RingWriter]) {
        let choice = input.byte()
        switch choice {
        case 0..<100: write(input.pick(Self.offsets), UInt32(input.byte()))
        case 100..<140: write(input.pick(Self.offsets), UInt32(truncatingIfNeeded: input.number64()))
        case 140..<160: write(VirtioRegister.status, input.pick([0, 1, 3, 11, 15, 128]))
        case 160..<180:
            let size = input.pick([1, 2, 4, 8])
            let bytes = input.take(size)
            bytes.withUnsafeBytes { transport.write(UInt64(input.word() % 4096), $0) }
        case 180..<200: _ = read(UInt64(input.word() % 4096))
        case 200..<230:
            let index = Int(choice & 1)
            rings[index].setDescriptor(
                UInt16(input.byte()), scene.address(&input), UInt32(input.word()), UInt16(input.byte() & 7),
                next: UInt16(input.byte()))
        case 230..<250: rings[Int(choice & 1)].publish(UInt16(input.byte()))
        default: transport.deviceBroke()
        }
    }

    private func write(_ offset: UInt64, _ value: UInt32) {
        withUnsafeBytes(of: value.littleEndian) { transport.write(offset, $0) }
    }

    private func read(_ offset: UInt64) -> UInt32 {
        var value: UInt32 = 0
        withUnsafeMutableBytes(of: &value) { transport.read(offset, $0) }
        return value
    }
}
