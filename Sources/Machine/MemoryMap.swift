import LinuxSystem
public import Virtio

/// Where things are in the guest-physical address space.
///
/// Memory lies from 0 up to 3 GiB, and what is more from 4 GiB on; the devices' registers are in the gap between. All of
/// it is one file, low memory first.
public struct MemoryMap: Sendable, Equatable {
    /// What a machine may have, in bytes.
    public static let sizes: ClosedRange<UInt64> = (64 << 20)...(64 << 30)
    public static let gap: Range<UInt64> = (3 << 30)..<(4 << 30)

    /// First page of the virtio-mmio register banks, one page each.
    public static let virtioBase: UInt64 = 0xd000_0000
    public static let virtioPage: UInt64 = 0x1000
    /// As many as there are inputs of the I/O APIC for.
    static let virtioPages = 18
    public static let ioAPIC: UInt64 = 0xfec0_0000
    public static let localAPIC: UInt64 = 0xfee0_0000
    /// Four pages that KVM needs for itself on Intel processors (KVM api.rst 4.34, 4.41), in the gap.
    static let identityMap: UInt64 = 0xfffb_c000
    static let taskState: UInt64 = 0xfffb_d000

    // Below 1 MiB, as a boot loader leaves it.
    static let descriptorTable: UInt64 = 0x500
    static let bootParameters: UInt64 = 0x7000
    static let bootStack: UInt64 = 0x8ff0
    static let pageTables: UInt64 = 0x9000
    static let commandLine: UInt64 = 0x2_0000
    /// Bytes with the final NUL.
    public static let commandLineLimit = 0x1_0000
    /// Where memory for programs ends below 1 MiB; the ACPI tables lie above.
    static let lowEnd: UInt64 = 0x9_f000
    static let generationID: UInt64 = 0x9_f000
    static let acpiTables: UInt64 = 0xe_0000
    static let acpiEnd: UInt64 = 0x10_0000
    static let highStart: UInt64 = 0x10_0000

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

    /// End of the memory below the gap.
    var lowMemoryEnd: UInt64 { ranges[0].end }

    /// Maps the memory's file, which must have `size` bytes.
    public func map(file: Int32) throws -> GuestMemory {
        try GuestMemory(
            ranges.map { range in
                let mapping = try Mapping(file: file, offset: Int64(range.offset), count: Int(range.count))
                let address = UInt64(UInt(bitPattern: mapping.base))
                return try MemoryRegion(guestAddress: range.address, userAddress: address, mapping: mapping)
            })
    }
}
