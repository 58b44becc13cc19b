import Glibc
public import LinuxSystem

/// One range of guest-physical addresses and the mapping that backs it.
public final class MemoryRegion: Sendable {
    /// First guest-physical address.
    public let guestAddress: UInt64
    /// The address of the same byte in the VMM's address space, which vhost-user uses for rings.
    public let userAddress: UInt64
    private let mapping: Mapping

    /// Bytes.
    public var count: UInt64 { UInt64(mapping.count) }
    fileprivate var base: UnsafeMutableRawPointer { mapping.base }

    /// - Throws: `MemoryError` when a range wraps the end of the address space.
    public init(guestAddress: UInt64, userAddress: UInt64, mapping: consuming Mapping) throws(MemoryError) {
        let count = UInt64(mapping.count)
        guard !guestAddress.addingReportingOverflow(count).overflow,
            !userAddress.addingReportingOverflow(count).overflow
        else { throw .wraps(address: guestAddress, count: count) }
        self.guestAddress = guestAddress
        self.userAddress = userAddress
        self.mapping = mapping
    }
}

/// Why regions can't form a guest's memory.
public enum MemoryError: Error, Equatable, Sendable {
    case wraps(address: UInt64, count: UInt64)
    case overlap(UInt64, UInt64)
}

/// A guest's memory: an immutable map, and the only place where a guest-physical address becomes a pointer.
///
/// The map checks bounds. The guest may change the bytes at any time, so code that checks a value must read it once and use
/// the copy.
public final class GuestMemory: Sendable {
    private let regions: [MemoryRegion]

    /// - Throws: `MemoryError.overlap` when two regions claim one guest-physical address.
    public init(_ regions: [MemoryRegion]) throws(MemoryError) {
        let sorted = regions.sorted { $0.guestAddress < $1.guestAddress }
        for (low, high) in zip(sorted, sorted.dropFirst()) where high.guestAddress - low.guestAddress < low.count {
            throw .overlap(low.guestAddress, high.guestAddress)
        }
        self.regions = sorted
    }

    /// The bytes from `address` on that lie in one region, at most `count`; nil when `address` is in no region.
    @inline(__always)
    func piece(at address: UInt64, atMost count: UInt64) -> (base: UnsafeMutableRawPointer, count: UInt64)? {
        for region in regions {
            guard address >= region.guestAddress else { return nil }
            let offset = address - region.guestAddress
            if offset < region.count {
                return (region.base + Int(offset), min(count, region.count - offset))
            }
        }
        return nil
    }

    /// A pointer to `count` bytes at `address`; nil unless one region holds all of them.
    @inline(__always)
    func contiguous(at address: UInt64, count: UInt64) -> UnsafeMutableRawPointer? {
        guard let piece = piece(at: address, atMost: count), piece.count == count else { return nil }
        return piece.base
    }

    /// Calls `body` with the `count` bytes at `address`, which are valid during the call.
    ///
    /// - Returns: what `body` returns; nil when no region holds all of the bytes.
    public func withBytes<R>(
        at address: UInt64, count: Int, _ body: (UnsafeMutableRawBufferPointer) throws -> R
    ) rethrows -> R? {
        guard count >= 0, let base = contiguous(at: address, count: UInt64(count)) else { return nil }
        return try body(UnsafeMutableRawBufferPointer(start: base, count: count))
    }

    /// The guest-physical address of the byte at `userAddress` in the VMM's address space; nil when it is in no region.
    public func guestAddress(ofUser userAddress: UInt64) -> UInt64? {
        for region in regions where userAddress >= region.userAddress {
            let offset = userAddress - region.userAddress
            if offset < region.count { return region.guestAddress + offset }
        }
        return nil
    }
}
