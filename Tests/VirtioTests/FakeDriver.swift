import Glibc
import LinuxSystem

@testable import Virtio

/// A guest's memory as a test sees it: a memory file mapped twice, once for the device, once for the driver.
final class FakeMemory {
    static let base: UInt64 = 0x10_0000
    let file: OwnedDescriptor
    let mapping: Mapping
    let guest: GuestMemory
    let count: Int

    init(count: Int = 4 << 20) throws {
        self.count = count
        file = try OwnedDescriptor.memory("fake guest", size: Int64(count))
        mapping = try Mapping(file: file.raw, count: count)
        guest = try GuestMemory([
            MemoryRegion(
                guestAddress: Self.base, userAddress: 0x7f00_0000_0000,
                mapping: Mapping(file: file.raw, count: count))
        ])
    }

    /// The driver's own view of a guest-physical address.
    func pointer(_ address: UInt64) -> UnsafeMutableRawPointer { mapping.base + Int(address - Self.base) }

    func store<T: FixedWidthInteger>(_ value: T, at address: UInt64) {
        pointer(address).storeBytes(of: value.littleEndian, as: T.self)
    }

    func load<T: FixedWidthInteger>(_: T.Type, at address: UInt64) -> T {
        T(littleEndian: pointer(address).loadUnaligned(as: T.self))
    }

    func write(_ bytes: [UInt8], at address: UInt64) {
        bytes.withUnsafeBytes { if let base = $0.baseAddress { memcpy(pointer(address), base, $0.count) } }
    }

    func read(_ count: Int, at address: UInt64) -> [UInt8] {
        Array(UnsafeRawBufferPointer(start: pointer(address), count: count))
    }
}

/// The driver's side of one split virtqueue, free to write anything.
final class FakeRing {
    static let next: UInt16 = 1
    static let write: UInt16 = 2
    static let indirect: UInt16 = 4

    let memory: FakeMemory
    let geometry: QueueGeometry
    var available: UInt16
    var used: UInt16
    private var nextDescriptor: UInt16 = 0

    /// Lays the ring out at `address`, which takes 24 KiB for 1024 entries.
    init(_ memory: FakeMemory, at address: UInt64, size: UInt32, position: UInt16 = 0) {
        self.memory = memory
        let availableRing = address + 16 * UInt64(size)
        let usedRing = (availableRing + 6 + 2 * UInt64(size) + 3) & ~3
        geometry = QueueGeometry(
            size: size, descriptorTable: address, availableRing: availableRing, usedRing: usedRing)
        available = position
        used = position
        memory.store(position, at: availableRing + 2)
        memory.store(position, at: usedRing + 2)
    }

    var size: UInt16 { UInt16(geometry.size) }

    func setDescriptor(
        _ index: UInt16, _ address: UInt64, _ count: UInt32, _ flags: UInt16 = 0, next: UInt16 = 0, table: UInt64? = nil
    ) {
        let place = (table ?? geometry.descriptorTable) + 16 * UInt64(index)
        memory.store(address, at: place)
        memory.store(count, at: place + 8)
        memory.store(flags, at: place + 12)
        memory.store(next, at: place + 14)
    }

    /// Makes the chain at `head` available.
    func publish(_ head: UInt16) {
        memory.store(head, at: geometry.availableRing + 4 + 2 * UInt64(available & (size - 1)))
        setAvailable(available &+ 1)
    }

    func setAvailable(_ index: UInt16) {
        available = index
        memory.store(index, at: geometry.availableRing + 2)
    }

    /// Writes a chain of buffers in the next free descriptors and makes it available. Answers its head.
    @discardableResult
    func add(_ buffers: [(address: UInt64, count: UInt32, isWritable: Bool)]) -> UInt16 {
        let head = nextDescriptor
        for (number, buffer) in buffers.enumerated() {
            let index = nextDescriptor
            nextDescriptor = (nextDescriptor + 1) & (size - 1)
            var flags: UInt16 = buffer.isWritable ? Self.write : 0
            if number + 1 < buffers.count { flags |= Self.next }
            setDescriptor(index, buffer.address, buffer.count, flags, next: nextDescriptor)
        }
        publish(head)
        return head
    }

    /// What the device has given back since the last time.
    func takeUsed() -> [(head: UInt32, count: UInt32)] {
        let end = memory.load(UInt16.self, at: geometry.usedRing + 2)
        var entries: [(UInt32, UInt32)] = []
        while used != end {
            let entry = geometry.usedRing + 4 + 8 * UInt64(used & (size - 1))
            entries.append((memory.load(UInt32.self, at: entry), memory.load(UInt32.self, at: entry + 4)))
            used &+= 1
        }
        return entries
    }

    /// The index at whose use the driver wants an interrupt.
    func setUsedEvent(_ index: UInt16) { memory.store(index, at: geometry.availableRing + 4 + 2 * UInt64(size)) }

    /// The index at which the device wants a kick.
    var availableEvent: UInt16 { memory.load(UInt16.self, at: geometry.usedRing + 4 + 8 * UInt64(size)) }
}

/// A generator of the same numbers at every run (SplitMix64).
struct Seeded: RandomNumberGenerator {
    private var state: UInt64
    init(_ seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
}
