import Glibc
public import LinuxSystem

/// One range of guest-physical addresses and the mapping that backs it.
public final class MemoryRegion: Sendable {
    /// First guest-physical address.
    public let guestAddress: UInt64
    /// The same byte in the address space of the process that runs the virtual machine (vhost-user ring addresses).
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

/// Why a set of regions can't be a guest's memory.
public enum MemoryError: Error, Equatable, Sendable {
    case wraps(address: UInt64, count: UInt64)
    case overlap(UInt64, UInt64)
}

/// A guest's memory: immutable, and the only place where a guest-physical address becomes a pointer.
///
/// Bounds are checked once, here. The bytes themselves belong to the guest, which may change them at any moment:
/// whoever checks a value must read it once and use what was read.
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

    /// The bytes from `address` on that lie in one region, at most `count`; nil when the first byte is in none.
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

    /// Where `count` bytes at `address` are, if one region holds them all.
    @inline(__always)
    func contiguous(at address: UInt64, count: UInt64) -> UnsafeMutableRawPointer? {
        guard let piece = piece(at: address, atMost: count), piece.count == count else { return nil }
        return piece.base
    }

    /// Lends `count` bytes at `address` for the time of `body`; nil when they aren't all in one region.
    public func withBytes<R>(
        at address: UInt64, count: Int, _ body: (UnsafeMutableRawBufferPointer) throws -> R
    ) rethrows -> R? {
        guard count >= 0, let base = contiguous(at: address, count: UInt64(count)) else { return nil }
        return try body(UnsafeMutableRawBufferPointer(start: base, count: count))
    }

    /// The guest-physical address of a byte that the virtual machine's process sees at `userAddress`.
    public func guestAddress(ofUser userAddress: UInt64) -> UInt64? {
        for region in regions where userAddress >= region.userAddress {
            let offset = userAddress - region.userAddress
            if offset < region.count { return region.guestAddress + offset }
        }
        return nil
    }
}
