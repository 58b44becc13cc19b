/// The size of a split virtqueue and the guest-physical addresses of its parts (virtio 1.2, 2.7).
public struct QueueGeometry: Equatable, Sendable {
    public var size: UInt32
    public var descriptorTable: UInt64
    public var availableRing: UInt64
    public var usedRing: UInt64

    public init(size: UInt32, descriptorTable: UInt64, availableRing: UInt64, usedRing: UInt64) {
        self.size = size
        self.descriptorTable = descriptorTable
        self.availableRing = availableRing
        self.usedRing = usedRing
    }

    /// The parts in this process's memory.
    struct Parts {
        var descriptors: UnsafeMutableRawPointer
        var available: UnsafeMutableRawPointer
        var used: UnsafeMutableRawPointer
    }

    /// Locates the parts. Each must lie in one region of memory.
    func locate(in memory: GuestMemory, maximumSize: UInt16) throws(QueueError) -> Parts {
        guard size > 0, size <= UInt32(maximumSize), size & (size - 1) == 0 else { throw .badSize(size) }
        let count = UInt64(size)
        return Parts(
            descriptors: try Self.locate(.descriptors, descriptorTable, 16 * count, alignment: 16, memory),
            available: try Self.locate(.available, availableRing, 6 + 2 * count, alignment: 2, memory),
            used: try Self.locate(.used, usedRing, 6 + 8 * count, alignment: 4, memory))
    }

    /// Checks the geometry that a driver has set, as `Virtqueue.start` does.
    public func check(in memory: GuestMemory, maximumSize: UInt16 = 1024) throws(QueueError) {
        _ = try locate(in: memory, maximumSize: maximumSize)
    }

    private static func locate(
        _ part: QueueError.RingPart, _ address: UInt64, _ count: UInt64, alignment: UInt64, _ memory: GuestMemory
    ) throws(QueueError) -> UnsafeMutableRawPointer {
        guard address % alignment == 0 else { throw .misaligned(part: part, address: address) }
        guard let base = memory.contiguous(at: address, count: count), UInt(bitPattern: base) % UInt(alignment) == 0
        else { throw .ringOutsideMemory(part: part, address: address) }
        return base
    }
}
