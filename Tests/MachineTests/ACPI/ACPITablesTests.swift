import Testing

@testable import Machine

extension ACPIConfiguration {
    /// A machine with so many vCPUs and devices, as the tests want it.
    static func sample(
        cpus: Int = 2, maximum: Int? = nil, devices: Int = 3, serial: Bool = false
    ) -> ACPIConfiguration {
        ACPIConfiguration(
            cpuCount: cpus, maximumCPUCount: maximum ?? cpus,
            virtioDevices: (0..<devices).map {
                VirtioDevice(address: 0xC000_0000 + UInt64($0) * 0x1000, gsi: 5 + UInt32($0))
            },
            generationID: 0x1_2345_6780, eventGSI: 3, serialPort: serial ? SerialPort(port: 0x3F8, gsi: 4) : nil)
    }
}

/// The tables found as a guest finds them: from the root pointer on.
struct FoundTables {
    static let base: UInt64 = 0xE0000

    let image: [UInt8]
    let rsdp: [UInt8]
    let xsdt: [UInt8]
    let fadt: [UInt8]
    let madt: [UInt8]
    let dsdt: [UInt8]

    init(_ configuration: ACPIConfiguration) throws {
        image = try ACPITables.build(at: Self.base, configuration)
        rsdp = Array(image.prefix(36))
        let root = image.number(at: 24, UInt64.self)
        xsdt = try Self.table(root, in: image)
        fadt = try Self.table(xsdt.number(at: 36, UInt64.self), in: image)
        madt = try Self.table(xsdt.number(at: 44, UInt64.self), in: image)
        dsdt = try Self.table(fadt.number(at: 140, UInt64.self), in: image)
    }

    private static func table(_ address: UInt64, in image: [UInt8]) throws -> [UInt8] {
        try #require(address >= base && address % 16 == 0 && address - base + 36 <= UInt64(image.count))
        let start = Int(address - base)
        let size = Int(image.number(at: start + 4, UInt32.self))
        try #require(size >= 36 && start + size <= image.count)
        return Array(image[start..<start + size])
    }
}

extension [UInt8] {
    func number<Number: FixedWidthInteger>(at offset: Int, _: Number.Type) -> Number {
        withUnsafeBytes { Number(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: Number.self)) }
    }

    var sum: UInt8 { reduce(0, &+) }
}

@Suite struct ACPITablesTests {
    @Test func everyTableIsFoundAndSumsToZero() throws {
        for (cpus, devices) in [(1, 0), (2, 1), (16, 7), (32, 19), (300, 3)] {
            let tables = try FoundTables(.sample(cpus: cpus, devices: devices))
            #expect(tables.rsdp.prefix(8) == Array("RSD PTR ".utf8)[...])
            #expect(tables.rsdp[15] == 2 && tables.rsdp.number(at: 20, UInt32.self) == 36)
            #expect(Array(tables.rsdp.prefix(20)).sum == 0 && tables.rsdp.sum == 0)
            for (table, signature) in [
                (tables.xsdt, "XSDT"), (tables.fadt, "FACP"), (tables.madt, "APIC"), (tables.dsdt, "DSDT"),
            ] {
                #expect(table.prefix(4) == Array(signature.utf8)[...])
                #expect(table.sum == 0, "\(signature) with \(cpus) vCPUs, \(devices) devices")
            }
            #expect(tables.xsdt.count == 36 + 2 * 8)
            // Nothing lies after the last table.
            #expect(tables.image.suffix(tables.dsdt.count) == tables.dsdt[...])
        }
    }

    @Test func theFADTSaysWhatIsThere() throws {
        let fadt = try FoundTables(.sample()).fadt
        #expect(fadt.count == 276 && fadt[8] == 6)
        // No VGA and no CMOS clock; no legacy devices and no keyboard controller.
        #expect(fadt.number(at: 109, UInt16.self) == 0b10_0100)
        // Hardware-reduced, with a reset register and without fixed buttons.
        #expect(fadt.number(at: 112, UInt32.self) == 1 << 20 | 1 << 10 | 1 << 5 | 1 << 4)
        let register = { (port: UInt64) -> [UInt8] in
            [1, 8, 0, 1] + [UInt8(port & 0xFF), UInt8(port >> 8)] + [0, 0, 0, 0, 0, 0]
        }
        #expect(Array(fadt[116..<128]) == register(0x602) && fadt[128] == 1)
        #expect(Array(fadt[244..<256]) == register(0x600) && Array(fadt[256..<268]) == register(0x601))
    }

    @Test func theMADTNamesVCPUsAndIOAPIC() throws {
        let madt = try FoundTables(.sample(cpus: 2)).madt
        #expect(
            Array(madt[36...]) == [
                0x00, 0x00, 0xE0, 0xFE, 0, 0, 0, 0,  // the local APICs' address; no 8259s
                0, 8, 0, 0, 1, 0, 0, 0,
                0, 8, 1, 1, 1, 0, 0, 0,
                1, 12, 0, 0, 0x00, 0x00, 0xC0, 0xFE, 0, 0, 0, 0,
            ])
        // What can be plugged is not enabled, but can be.
        let growing = try FoundTables(.sample(cpus: 1, maximum: 2)).madt
        #expect(Array(growing[44..<60]) == [0, 8, 0, 0, 1, 0, 0, 0, 0, 8, 1, 1, 2, 0, 0, 0])
        let large = try FoundTables(.sample(cpus: 257)).madt
        #expect(large.count == 44 + 255 * 8 + 2 * 16 + 12)
        let first = 44 + 255 * 8
        #expect(Array(large[first..<first + 16]) == [9, 16, 0, 0, 255, 0, 0, 0, 1, 0, 0, 0, 255, 0, 0, 0])
    }

    @Test func whatCannotBeNamedIsRefused() throws {
        var configurations = [ACPIConfiguration](repeating: .sample(), count: 8)
        configurations[0].cpuCount = 0
        configurations[1].eventGSI = 24
        configurations[2].virtioDevices[1].gsi = 3
        configurations[3].virtioDevices[1].address = 0x1_0000_0000
        configurations[4].virtioDevices[1].address = 0xFFFF_F800
        configurations[5].serialPort = .init(port: 0x3F8, gsi: 5)
        configurations[6].cpuCount = .max
        configurations[7].maximumCPUCount = 1
        for configuration in configurations {
            #expect(throws: MachineError.self) { try ACPITables.build(at: 0xE0000, configuration) }
        }
    }

    @Test func powerOffIsWhatTheKernelWrites() {
        #expect(ACPISleep.powerOff == 0x34)
    }
}
