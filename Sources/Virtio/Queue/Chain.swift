import Glibc
import Synchronization

/// One descriptor as the driver wrote it, read once (virtio 1.2, 2.7.5).
private struct Descriptor {
    static let size = 16
    var address: UInt64
    private var rest: UInt64

    var count: UInt32 { UInt32(truncatingIfNeeded: rest) }
    var next: UInt16 { UInt16(truncatingIfNeeded: rest >> 48) }
    var hasNext: Bool { rest & 1 << 32 != 0 }
    var isWritable: Bool { rest & 2 << 32 != 0 }
    var isIndirect: Bool { rest & 4 << 32 != 0 }

    /// Reads with atomic loads, so that the compiler can't read the guest's memory again after a check.
    @inline(__always)
    init(_ table: UnsafeMutableRawPointer, _ index: Int) {
        let entry = table + index * Self.size
        if UInt(bitPattern: entry) % 8 == 0 {
            let halves = entry.assumingMemoryBound(to: Atomic<UInt64>.self)
            address = halves.pointee.load(ordering: .relaxed)
            rest = (halves + 1).pointee.load(ordering: .relaxed)
        } else {
            // An indirect table need not be aligned.
            var copy: (UInt64, UInt64) = (0, 0)
            memcpy(&copy, entry, Self.size)
            (address, rest) = copy
        }
    }
}

extension Virtqueue {
    /// Follows the chain that starts at descriptor `head` and fills `vectors`: first the readable part, then the writable part.
    func walk(_ head: UInt16) throws(QueueError) {
        guard let memory, var table = descriptors else { throw .stopped }
        var entries = UInt32(size)
        var index = UInt32(head)
        var visited: UInt32 = 0
        var inIndirect = false
        var total = 0
        while true {
            guard index < entries else { throw .nextBeyondTable(UInt16(truncatingIfNeeded: index)) }
            guard visited < entries else { throw .loop }
            visited += 1
            let descriptor = Descriptor(table, Int(index))
            if descriptor.isIndirect {
                guard !inIndirect else { throw .nestedIndirect }
                (table, entries) = try indirectTable(descriptor, memory)
                inIndirect = true
                index = 0
                visited = 0
                continue
            }
            total += 1
            guard total <= Self.maximumChain else { throw .chainTooLong }
            try append(descriptor, memory)
            guard descriptor.hasNext else { return }
            index = UInt32(descriptor.next)
        }
    }

    private func indirectTable(
        _ descriptor: Descriptor, _ memory: GuestMemory
    ) throws(QueueError) -> (UnsafeMutableRawPointer, UInt32) {
        guard indirect else { throw .indirectNotNegotiated }
        guard !descriptor.hasNext else { throw .indirectWithNext }
        let entries = descriptor.count / UInt32(Descriptor.size)
        guard entries > 0, entries <= 32768, descriptor.count % UInt32(Descriptor.size) == 0
        else { throw .indirectLength(descriptor.count) }
        guard let table = memory.contiguous(at: descriptor.address, count: UInt64(descriptor.count))
        else { throw .outsideMemory(address: descriptor.address, count: descriptor.count) }
        return (table, entries)
    }

    /// Adds a descriptor's bytes to the chain. An empty descriptor adds no vector; one that crosses memory regions adds several.
    private func append(_ descriptor: Descriptor, _ memory: GuestMemory) throws(QueueError) {
        if descriptor.isWritable {
            inWritablePart = true
            writableBytes = try Self.sum(writableBytes, descriptor.count)
        } else {
            guard !inWritablePart else { throw .readableAfterWritable }
            readableBytes = try Self.sum(readableBytes, descriptor.count)
        }
        var address = descriptor.address
        var left = UInt64(descriptor.count)
        guard !address.addingReportingOverflow(left).overflow
        else { throw .outsideMemory(address: descriptor.address, count: descriptor.count) }
        while left > 0 {
            guard let piece = memory.piece(at: address, atMost: left)
            else { throw .outsideMemory(address: descriptor.address, count: descriptor.count) }
            guard vectorCount < Self.maximumChain else { throw .chainTooLong }
            vectors[vectorCount] = iovec(iov_base: piece.base, iov_len: Int(piece.count))
            vectorCount += 1
            if !descriptor.isWritable { readableCount = vectorCount }
            address += piece.count
            left -= piece.count
        }
    }

    private static func sum(_ a: UInt32, _ b: UInt32) throws(QueueError) -> UInt32 {
        let (sum, overflow) = a.addingReportingOverflow(b)
        guard !overflow else { throw .chainTooLarge }
        return sum
    }
}
