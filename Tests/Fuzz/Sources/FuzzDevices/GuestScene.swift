import FuzzSupport
import Glibc
import LinuxSystem

@testable import Virtio

/// A guest's memory of three regions, two of which touch, and the driver's view of it.
final class GuestScene {
    /// First guest-physical address, bytes and offset in the file of each region.
    static let regions: [(address: UInt64, count: UInt64, offset: UInt64)] = [
        (0x1_0000, 0x1_0000, 0), (0x2_0000, 0xc000, 0x1_0000), (0x1_0000_0000, 0x4000, 0x1_c000),
    ]
    static let count = 0x2_0000
    /// Where data goes that does not lie in a ring: behind those of three queues.
    static let data: UInt64 = 0x1_6000

    let file: OwnedDescriptor
    let guest: GuestMemory
    private let mapping: Mapping

    init() throws {
        file = try OwnedDescriptor.memory("fuzz", size: Int64(Self.count))
        mapping = try Mapping(file: file.raw, count: Self.count)
        var regions: [MemoryRegion] = []
        for region in Self.regions {
            regions.append(
                try MemoryRegion(
                    guestAddress: region.address, userAddress: 0x7f00_0000_0000 + region.address,
                    mapping: Mapping(file: file.raw, offset: Int64(region.offset), count: Int(region.count))))
        }
        guest = try GuestMemory(regions)
    }

    func clear() { memset(mapping.base, 0, Self.count) }

    /// Writes at a guest-physical address; nothing where there is no memory for all of it.
    func write(_ bytes: [UInt8], at address: UInt64) {
        _ = guest.withBytes(at: address, count: bytes.count) { $0.copyBytes(from: bytes) }
    }

    func store<Number: FixedWidthInteger>(_ value: Number, at address: UInt64) {
        withUnsafeBytes(of: value.littleEndian) { write(Array($0), at: address) }
    }

    func load<Number: FixedWidthInteger>(_: Number.Type, at address: UInt64) -> Number {
        guest.withBytes(at: address, count: MemoryLayout<Number>.size) { $0.loadUnaligned(as: Number.self) } ?? 0
    }

    /// An address as the input has it: of the rings, of data, at the border of two regions, or any.
    func address(_ input: inout Input) -> UInt64 {
        let kind = input.byte()
        switch kind {
        case 0..<160: return Self.data + UInt64(input.word()) % 0x8000
        case 160..<200: return 0x2_0000 - 128 + UInt64(input.word()) % 512
        case 200..<216: return 0x1_0000 + UInt64(input.word())
        case 216..<232: return 0x1_0000_0000 + UInt64(input.word()) % 0x5000
        case 232..<240: return 0x2_c000 - 64 + UInt64(input.word()) % 128
        default: return input.number64()
        }
    }

    /// Checks that each buffer lies in a region, and that together they have `count` bytes.
    func check(_ buffers: UnsafeBufferPointer<iovec>, count: Int) {
        var sum = 0
        for buffer in buffers {
            sum += buffer.iov_len
            guard let base = buffer.iov_base, buffer.iov_len > 0 else { fatalError("an empty buffer") }
            let inside = Self.regions.contains { region in
                guest.withBytes(at: region.address, count: Int(region.count)) { bytes in
                    guard let start = bytes.baseAddress else { return false }
                    return base >= start && base + buffer.iov_len <= start + bytes.count
                } ?? false
            }
            require(inside, "a buffer outside the guest's memory")
        }
        require(sum == count, "\(sum) bytes in buffers of \(count)")
    }
}

/// The driver's side of a split virtqueue, free to write anything.
struct RingWriter {
    let scene: GuestScene
    let geometry: QueueGeometry
    private var available: UInt16

    /// The ring of queue `index`, of `1 << order` entries, 128 at most.
    init(_ scene: GuestScene, _ index: Int, order: Int, position: UInt16 = 0) {
        let size = UInt32(1) << UInt32(order)
        let table = 0x1_0000 + 0x2000 * UInt64(index)
        let availableRing = table + 16 * UInt64(size)
        self.scene = scene
        geometry = QueueGeometry(
            size: size, descriptorTable: table, availableRing: availableRing,
            usedRing: (availableRing + 6 + 2 * UInt64(size) + 3) & ~3)
        available = position
        scene.store(position, at: availableRing + 2)
        scene.store(position, at: geometry.usedRing + 2)
    }

    func setDescriptor(_ index: UInt16, _ address: UInt64, _ count: UInt32, _ flags: UInt16, next: UInt16) {
        let place = geometry.descriptorTable + 16 * UInt64(index % UInt16(geometry.size))
        scene.store(address, at: place)
        scene.store(count, at: place + 8)
        scene.store(flags, at: place + 12)
        scene.store(next, at: place + 14)
    }

    mutating func publish(_ head: UInt16) {
        scene.store(head, at: geometry.availableRing + 4 + 2 * UInt64(available % UInt16(geometry.size)))
        setAvailable(available &+ 1)
    }

    mutating func setAvailable(_ index: UInt16) {
        available = index
        scene.store(index, at: geometry.availableRing + 2)
    }

    func setUsedEvent(_ index: UInt16) {
        scene.store(index, at: geometry.availableRing + 4 + 2 * UInt64(geometry.size))
    }
}
