/// The "zero page", which the boot loader passes to the kernel (`struct boot_params`, Documentation/arch/x86/zero-page.rst).
struct BootParameters {
    private(set) var page = [UInt8](repeating: 0, count: 4096)

    /// - Parameters:
    ///   - setupHeader: a bzImage's, from offset 0x1f1 on; empty for a vmlinux, which gets one of the loader's own.
    ///   - commandLineCount: bytes of the command line without its NUL.
    init(
        setupHeader: [UInt8], commandLineCount: Int, initramfs: (address: UInt64, count: UInt64)?, map: MemoryMap
    ) {
        page.replaceSubrange(Self.header..<Self.header + setupHeader.count, with: setupHeader)
        put(UInt16(0xaa55), at: 0x1fe)  // boot_flag
        put(UInt32(0x5372_6448), at: 0x202)  // "HdrS"
        if setupHeader.isEmpty {
            put(UInt16(0x020f), at: 0x206)  // version
            put(UInt32(0x0100_0000), at: 0x230)  // kernel_alignment
        }
        page[0x210] = 0xff  // type_of_loader: unregistered
        page[0x211] |= 1  // LOADED_HIGH
        put(UInt32(MemoryMap.commandLine), at: 0x228)
        put(UInt32(commandLineCount), at: 0x238)
        if let initramfs {
            put(UInt32(truncatingIfNeeded: initramfs.address), at: 0x218)
            put(UInt32(truncatingIfNeeded: initramfs.count), at: 0x21c)
        }
        put(MemoryMap.acpiTables, at: 0x070)  // acpi_rsdp_addr
        let entries = Self.addressMap(map)
        page[0x1e8] = UInt8(entries.count)
        for (index, entry) in entries.enumerated() {
            let offset = 0x2d0 + index * 20
            put(entry.address, at: offset)
            put(entry.count, at: offset + 8)
            put(entry.kind.rawValue, at: offset + 16)
        }
    }

    private static let header = 0x1f1

    enum Kind: UInt32 {
        case memory = 1
        case reserved = 2
        case acpi = 3
    }

    /// The e820 map: memory for programs, and what the tables occupy.
    static func addressMap(_ map: MemoryMap) -> [(address: UInt64, count: UInt64, kind: Kind)] {
        [
            (0, MemoryMap.lowEnd, .memory),
            (MemoryMap.lowEnd, 0xa_0000 - MemoryMap.lowEnd, .reserved),
            (MemoryMap.acpiTables, MemoryMap.acpiEnd - MemoryMap.acpiTables, .acpi),
            (MemoryMap.highStart, map.lowMemoryEnd - MemoryMap.highStart, .memory),
        ] + map.ranges.dropFirst().map { ($0.address, $0.count, .memory) }
    }

    private mutating func put(_ value: some FixedWidthInteger, at offset: Int) {
        withUnsafeBytes(of: value.littleEndian) { page.replaceSubrange(offset..<offset + $0.count, with: $0) }
    }
}
