import Glibc
import LinuxSystem

@testable import VhostUser
@testable import Virtio

/// A machine without processors: memory, two rings, and their eventfds.
class FakeMachine {
    let memory: FakeMemory
    var rings: [FakeRing]
    let kicks: [SharedDescriptor]
    let calls: [SharedDescriptor]
    let lines: [RingLines]

    init() throws {
        let memory = try FakeMemory()
        self.memory = memory
        rings = Self.rings(memory)
        kicks = try (0..<2).map { _ in SharedDescriptor(try EventDescriptor().descriptor.duplicate()) }
        calls = try (0..<2).map { _ in SharedDescriptor(try EventDescriptor().descriptor.duplicate()) }
        lines = calls.map { call in
            let lines = RingLines()
            lines.setCall(call)
            return lines
        }
    }

    private static func rings(_ memory: FakeMemory) -> [FakeRing] {
        (0..<2).map { FakeRing(memory, at: FakeMemory.base + 0x8000 * UInt64($0), size: 128) }
    }

    /// Empty rings, as after a reset of the driver.
    func reset() { rings = Self.rings(memory) }

    /// The memory as the front end hands it on.
    var regions: [SharedMemoryRegion] {
        get throws {
            [
                SharedMemoryRegion(
                    guestAddress: FakeMemory.base, userAddress: 0x7f00_0000_0000, size: UInt64(memory.count),
                    file: SharedDescriptor(try memory.file.duplicate()), offset: 0)
            ]
        }
    }

    func setup(_ queue: Int, features: UInt64 = RingFeatures.all.rawValue, position: UInt16 = 0) -> QueueSetup {
        QueueSetup(
            geometry: rings[queue].geometry, memory: memory.guest, features: RingFeatures(rawValue: features),
            position: position, isFresh: position == 0, kick: kicks[queue], lines: lines[queue])
    }

    func kick(_ queue: Int) {
        var one: UInt64 = 1
        _ = write(kicks[queue].raw, &one, 8)
    }

    /// Whether the guest was interrupted, within two seconds; takes the interrupt away.
    func wasInterrupted(_ queue: Int) -> Bool {
        var value: UInt64 = 0
        return isReadable(calls[queue].raw) && read(calls[queue].raw, &value, 8) == 8
    }
}
