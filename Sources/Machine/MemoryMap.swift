import Glibc
import LinuxSystem
public import Virtio

/// Where memory is in the guest-physical address space. The architecture's extension has the addresses.
///
/// Memory begins at 0 and leaves out a gap, where the devices' registers are. All of it is one file, low memory first.
public struct MemoryMap: Sendable, Equatable {
    /// What a machine may have, in bytes.
    public static let sizes: ClosedRange<UInt64> = (64 << 20)...(64 << 30)
    /// Bytes of an MMIO slot's registers.
    public static let virtioPage: UInt64 = 0x1000

    /// A range of memory.
    public struct Bank: Sendable, Equatable {
        public var address: UInt64
        public var count: UInt64
        /// Where it is in the memory's file.
        public var offset: UInt64
        public var end: UInt64 { address + count }
    }

    /// One, or two where memory reaches over the gap.
    public let ranges: [Bank]
    /// Bytes.
    public let size: UInt64

    /// - Parameter size: bytes, whole pages, in `sizes`.
    /// - Throws: `MachineError` where the size is not possible.
    public init(size: UInt64) throws(MachineError) {
        guard Self.sizes.contains(size), size % 4096 == 0 else {
            throw MachineError("memory of \(size) bytes: not whole pages from 64 MiB to 64 GiB")
        }
        self.size = size
        let low = min(size, Self.gap.lowerBound)
        ranges =
            [Bank(address: 0, count: low, offset: 0)]
            + (size > low ? [Bank(address: Self.gap.upperBound, count: size - low, offset: low)] : [])
    }

    /// Maps a range of a file so that what is written is not in the file. Its holes are memory without a file, in huge pages where the
    /// host has them: a write to a file's hole would first fill a page of the page cache.
    private static func mapPrivately(_ file: Int32, _ range: Bank) throws -> Mapping {
        let mapping = try Mapping(
            file: -1, count: Int(range.count), flags: MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)
        madvise(mapping.base, mapping.count, MADV_HUGEPAGE)
        let offsets = Int64(range.offset)..<Int64(range.offset + range.count)
        try eachExtent(of: file, in: offsets, "guest memory") { extent in
            let target = mapping.base + Int(extent.lowerBound - offsets.lowerBound)
            let flags = MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE
            guard
                mmap(target, extent.count, PROT_READ | PROT_WRITE, flags, file, off_t(extent.lowerBound)) != MAP_FAILED
            else { throw SystemError.last("mmap", "guest memory") }
        }
        return mapping
    }

    /// End of the memory below the gap.
    var lowMemoryEnd: UInt64 { ranges[0].end }

    /// Where the root image is: above all memory, at the start of a 1 GiB page of addresses.
    var rootImage: UInt64 {
        let page: UInt64 = 1 << 30
        let end = max(Self.gap.upperBound, ranges.reduce(0) { max($0, $1.end) })
        return (end + page - 1) / page * page
    }

    /// Maps the memory's file, which must have `size` bytes.
    ///
    /// - Parameters:
    ///   - file: the file's descriptor, which the mapping does not need afterwards.
    ///   - isPrivate: what is written is not in the file, and memory that is not written to is the page cache's.
    /// - Throws: `SystemError` where it can't be mapped.
    public func map(file: Int32, isPrivate: Bool = false) throws -> GuestMemory {
        try GuestMemory(
            ranges.map { range in
                let mapping =
                    isPrivate
                    ? try Self.mapPrivately(file, range)
                    : try Mapping(file: file, offset: Int64(range.offset), count: Int(range.count))
                let address = UInt64(UInt(bitPattern: mapping.base))
                return try MemoryRegion(guestAddress: range.address, userAddress: address, mapping: mapping)
            })
    }
}
