import LinuxSystem

/// The ACPI tables of a machine without the fixed hardware of a PC ("hardware-reduced", ACPI 6.3, 4.1).
enum ACPITables {
    /// Inputs of the IOAPIC, and so the number of interrupts.
    static let interruptCount: UInt32 = 24

    /// The tables as they lie in guest memory from `address` on, which is a multiple of 16: the RSDP, and what it
    /// leads to.
    ///
    /// - Throws: a device that the tables can't name: an interrupt that the IOAPIC has no input for, a register block
    ///   beyond 4 GiB, no or too many vCPUs.
    static func build(at address: UInt64, _ configuration: ACPIConfiguration) throws(MachineError) -> [UInt8] {
        try check(configuration)
        let dsdt = table("DSDT", revision: 2, try DSDT.content(configuration).bytes)
        let madt = MADT.table(
            cpuCount: configuration.cpuCount, maximumCPUCount: configuration.maximumCPUCount)
        // The tables' sizes don't depend on the addresses in them, but the addresses on the sizes.
        let xsdtAddress = aligned(address + UInt64(RSDP.size))
        let facpAddress = aligned(xsdtAddress + UInt64(xsdt([0, 0]).count))
        let madtAddress = aligned(facpAddress + UInt64(FADT.table(dsdt: 0).count))
        let dsdtAddress = aligned(madtAddress + UInt64(madt.count))
        var image = RSDP.bytes(xsdt: xsdtAddress)
        for (start, bytes) in [
            (xsdtAddress, xsdt([facpAddress, madtAddress])), (facpAddress, FADT.table(dsdt: dsdtAddress)),
            (madtAddress, madt), (dsdtAddress, dsdt),
        ] {
            image += [UInt8](repeating: 0, count: Int(start - address) - image.count) + bytes
        }
        return image
    }

    private static func check(_ configuration: ACPIConfiguration) throws(MachineError) {
        guard (1...4096).contains(configuration.cpuCount) else {
            throw MachineError("ACPI: \(configuration.cpuCount) vCPUs")
        }
        guard (configuration.cpuCount...4096).contains(configuration.maximumCPUCount) else {
            throw MachineError("ACPI: \(configuration.cpuCount) vCPUs of \(configuration.maximumCPUCount)")
        }
        let interrupts =
            configuration.virtioDevices.map(\.gsi) + [configuration.eventGSI]
            + (configuration.serialPort.map { [$0.gsi] } ?? [])
        guard interrupts.allSatisfy({ $0 < interruptCount }), Set(interrupts).count == interrupts.count else {
            throw MachineError("ACPI: interrupts \(interrupts) are not \(interrupts.count) of \(interruptCount)")
        }
    }

    private static func aligned(_ address: UInt64) -> UInt64 { (address + 15) & ~15 }

    /// The value of a checksum's byte, itself 0 in `bytes`, that makes the sum of all 0.
    static func checksum(_ bytes: some Sequence<UInt8>) -> UInt8 { 0 &- bytes.reduce(0, &+) }

    /// A table with its header (5.2.6).
    static func table(_ signature: String, revision: UInt8, _ content: [UInt8]) -> [UInt8] {
        let headerSize = 36
        var bytes = Array(signature.utf8)
        bytes.append(littleEndian: UInt32(headerSize + content.count))
        bytes += [revision, 0]
        bytes += Array("MRTLET".utf8) + Array("MARTLETV".utf8)
        bytes.append(littleEndian: 1 as UInt32)
        bytes += Array("MRTL".utf8)
        bytes.append(littleEndian: 1 as UInt32)
        bytes += content
        bytes[9] = checksum(bytes)
        return bytes
    }

    private static func xsdt(_ tables: [UInt64]) -> [UInt8] {
        var content: [UInt8] = []
        for address in tables { content.append(littleEndian: address) }
        return table("XSDT", revision: 1, content)
    }
}

/// The root pointer (5.2.5.3), revision 2: the one that a guest is told the address of, or looks for.
enum RSDP {
    static let size = 36

    static func bytes(xsdt: UInt64) -> [UInt8] {
        var bytes = Array("RSD PTR ".utf8) + [0] + Array("MRTLET".utf8) + [2]
        bytes.append(littleEndian: 0 as UInt32)
        bytes.append(littleEndian: UInt32(size))
        bytes.append(littleEndian: xsdt)
        bytes += [0, 0, 0, 0]
        // Two sums: of the part that revision 1 had, and of all.
        bytes[8] = ACPITables.checksum(bytes.prefix(20))
        bytes[32] = ACPITables.checksum(bytes)
        return bytes
    }
}
