/// Where things are in an x86 machine's guest-physical address space.
extension MemoryMap {
    /// The devices' registers and the APICs are here, and no memory.
    public static let gap: Range<UInt64> = (3 << 30)..<(4 << 30)

    /// First page of the MMIO slots' registers, one page each.
    public static let virtioBase: UInt64 = 0xd000_0000
    static let ioAPIC: UInt64 = 0xfec0_0000
    static let localAPIC: UInt64 = 0xfee0_0000
    /// Four pages that KVM needs for itself on Intel's processors (KVM api.rst 4.34, 4.41), in the gap.
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
    /// Where memory for programs ends below 1 MiB; the ACPI tables are above.
    static let lowEnd: UInt64 = 0x9_f000
    static let generationID: UInt64 = 0x9_f000
    static let acpiTables: UInt64 = 0xe_0000
    static let acpiEnd: UInt64 = 0x10_0000
    static let highStart: UInt64 = 0x10_0000
}
