import Glibc
import LinuxSystem
public import Virtio

/// Where memory is in the guest-physical address space. The architecture's extension has the addresses.
///
/// Memory begins at 0 and leaves out a gap, where the devices' registers are. All of it is one file, low memory first, and last the
/// memory that the guest can get while it runs.
public struct MemoryMap: Sendable, Equatable {
    /// What a machine may have, in bytes.
    public static let sizes: ClosedRange<UInt64> = (64 << 20)...(64 << 30)
    /// Bytes of an MMIO slot's registers.
    public static let virtioPage: UInt64 = 0x1000

    /// Memory that can be plugged comes in such pieces, bytes: what x86 Linux adds at a time.
    public static let hotplugUnit: UInt64 = 128 << 20

    /// A range of memory.
    public struct Bank: Sendable, Equatable {
        public var address: UInt64
        public var count: UInt64
        /// Where it is in the memory's file.
        public var offset: UInt64
        public var end: UInt64 { address + count }
    }

    /// What the guest has from the start on: one range, or two where memory reaches over the gap.
    public let ranges: [Bank]
    /// Bytes of `ranges`.
    public let size: UInt64
    /// What the guest can get besides, block by block (virtio-mem); nil: nothing.
    public let hotplug: Bank?

    /// All memory.
    public var banks: [Bank] { ranges + (hotplug.map { [$0] } ?? []) }
    /// Bytes of the memory's file.
    public var fileSize: UInt64 { size + (hotplug?.count ?? 0) }

    /// - Parameters:
    ///   - size: bytes, whole pages, in `sizes`.
    ///   - hotplug: bytes that the guest can get besides, a multiple of `hotplugUnit`.
    /// - Throws: `MachineError` where a size is not possible.
    public init(size: UInt64, hotplug: UInt64 = 0) throws(MachineError) {
        guard Self.sizes.contains(size), size % 4096 == 0 else {
            throw MachineError("memory of \(size) bytes: not whole pages from 64 MiB to 64 GiB")
        }
        self.size = size
        let low = min(size, Self.gap.lowerBound)
        ranges =
            [Bank(address: 0, count: low, offset: 0)]
            + (size > low ? [Bank(address: Self.gap.upperBound, count: size - low, offset: low)] : [])
        guard hotplug % Self.hotplugUnit == 0, hotplug <= Self.sizes.upperBound else {
            throw MachineError("hotplug memory of \(hotplug) bytes: not a multiple of 128 MiB up to 64 GiB")
        }
        let start = Self.rootImage(above: ranges) + Self.rootImageLimit
        self.hotplug = hotplug > 0 ? Bank(address: start, count: hotplug, offset: size) : nil
    }

    /// The part of `hotplug` at some guest-physical addresses; nil: they are not in it.
    func hotplugBank(at addresses: Range<UInt64>) -> Bank? {
        guard let hotplug, addresses.lowerBound >= hotplug.address, addresses.upperBound <= hotplug.end else {
            return nil
        }
        let count = UInt64(addresses.count)
        return Bank(
            address: addresses.lowerBound, count: count, offset: hotplug.offset + addresses.lowerBound - hotplug.address
        )
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

    /// Addresses that the root image has for itself, bytes.
    static let rootImageLimit: UInt64 = 1 << 30

    /// Where the root image is: above the memory that is there from the start on, at the start of a 1 GiB page of addresses.
    var rootImage: UInt64 { Self.rootImage(above: ranges) }

    private static func rootImage(above ranges: [Bank]) -> UInt64 {
        let page: UInt64 = 1 << 30
        let end = max(gap.upperBound, ranges.reduce(0) { max($0, $1.end) })
        return (end + page - 1) / page * page
    }

    /// Maps the memory's file, which must have `fileSize` bytes.
    ///
    /// - Parameters:
    ///   - file: the file's descriptor, which the mapping does not need afterwards.
    ///   - isPrivate: what is written is not in the file, and memory that is not written to is the page cache's.
    /// - Throws: `SystemError` where it can't be mapped.
    public func map(file: Int32, isPrivate: Bool = false) throws -> GuestMemory {
        try GuestMemory(
            banks.map { range in
                let mapping =
                    isPrivate
                    ? try Self.mapPrivately(file, range)
                    : try Mapping(file: file, offset: Int64(range.offset), count: Int(range.count))
                let address = UInt64(UInt(bitPattern: mapping.base))
                return try MemoryRegion(guestAddress: range.address, userAddress: address, mapping: mapping)
            })
    }
}
