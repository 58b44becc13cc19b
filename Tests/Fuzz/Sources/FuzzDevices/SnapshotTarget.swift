import CLinux
import FuzzSupport
import Glibc
import LinuxSystem

@testable import Machine
@testable import Virtio

/// The state of a machine as `martlet-vmm` reads it from a template, and a device's part of it set in a transport.
final class SnapshotTarget: FuzzTarget {
    private let scene: GuestScene
    private let device = RingsDevice()
    private let transport: VirtioTransport
    private let tasks: LoopTasks
    private let registers = UnsafeMutableRawPointer.allocate(byteCount: RegisterPage.size, alignment: 4096)
    private let valid: [UInt8]

    init() throws {
        scene = try GuestScene()
        registers.initializeMemory(as: UInt8.self, repeating: 0, count: RegisterPage.size)
        let loop = try EventLoop()
        let tasks = try LoopTasks(loop)
        self.tasks = tasks
        transport = try VirtioTransport(
            deviceID: 4, device: device, memory: scene.guest, page: RegisterPage(registers), loop: tasks,
            onFailure: { _ in })
        valid = Self.state(of: scene).encoded()
        try startThread("loop") {
            while true { try? loop.runOnce(timeoutMilliseconds: -1) }
        }
    }

    /// A state with each section, of a device whose rings are the scene's.
    private static func state(of scene: GuestScene) -> MachineSnapshot {
        var slot = SlotState(index: 1, deviceID: 4, status: 15)
        slot.driverFeatures = RingFeatures.version1.rawValue
        slot.queues = (0..<2).map { index in
            let geometry = RingWriter(scene, index, order: 4).geometry
            return SlotState.Queue(
                size: geometry.size, isReady: true, isRunning: true, descriptors: geometry.descriptorTable,
                driver: geometry.availableRing, device: geometry.usedRing, position: 3)
        }
        let vcpu = VCPUState(
            tscKHz: 2_000_000, parts: VCPUState.parts.map { [UInt8](repeating: 1, count: $0.size) },
            msrs: [.init(index: 0x10, value: 1), .init(index: 0x6e0, value: 2)])
        return MachineSnapshot(
            memoryBytes: 64 << 20, cpu: .init(), freeSlots: [2, 3],
            platform: PlatformState(
                cpuid: [[0, 0, 0, 1, 2, 3, 4]],
                interruptControllers: (0..<3).map { _ in [UInt8](repeating: 0, count: MemoryLayout<kvm_irqchip>.size) },
                clock: 1),
            vcpus: [vcpu], slots: [slot])
    }

    /// Input: bytes as they are; or changes of a valid state: where, how many bytes, and what; and where it is cut off.
    func run(_ input: inout Input) throws {
        scene.clear()
        let kind = input.byte()
        var bytes = kind < 20 ? input.rest() : valid
        // The end has the slot; numbers of sections and counts are all over the file.
        for _ in 0..<(kind < 20 ? 0 : Int(kind % 8)) where !input.isEmpty {
            let position =
                input.byte() < 160 ? bytes.count - 1 - Int(input.word() % 160) : Int(input.word()) % bytes.count
            let value = input.number64()
            for offset in 0..<input.pick([1, 2, 4, 8]) where bytes.indices.contains(position + offset) {
                bytes[position + offset] = UInt8(truncatingIfNeeded: value >> (8 * UInt64(offset)))
            }
        }
        if input.byte() > 240 { bytes.removeLast(min(bytes.count, Int(input.word()))) }
        let snapshot = try MachineSnapshot(bytes)
        require(snapshot.encoded() == bytes, "a state that was read is written otherwise")
        for state in snapshot.slots {
            let transport = transport
            _ = try? tasks.sync { try? transport.restore(state) }
        }
        withUnsafeBytes(of: UInt32(0)) { transport.write(VirtioRegister.status, $0) }
        require(!device.rings.contains(where: \.isRunning), "a ring runs after a reset")
        for kick in transport.kicks { _ = consumeKick(kick.raw) }
        _ = consumeKick(transport.interrupt.raw)
    }
}
