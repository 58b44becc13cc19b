import LinuxSystem

/// The fixed description table, revision 6 (ACPI 6.3, 5.2.9): most of it is about hardware that this machine hasn't,
/// and 0.
enum FADT {
    /// Where a field lies in the table.
    private enum Offset {
        static let bootArchitecture = 109
        static let flags = 112
        static let resetRegister = 116
        static let resetValue = 128
        static let minorVersion = 131
        static let dsdt = 140
        static let sleepControl = 244
        static let sleepStatus = 256
        static let hypervisor = 268
        static let end = 276
    }

    /// Bits of IAPC_BOOT_ARCH. The ones for devices on a legacy bus and for a keyboard controller stay 0.
    private enum BootArchitecture {
        static let noVGA: UInt16 = 1 << 2
        static let noClock: UInt16 = 1 << 5
    }

    private enum Flag {
        /// Buttons, if any, are devices in the DSDT.
        static let noFixedPowerButton: UInt32 = 1 << 4
        static let noFixedSleepButton: UInt32 = 1 << 5
        static let resetRegister: UInt32 = 1 << 10
        static let hardwareReduced: UInt32 = 1 << 20
    }

    static func table(dsdt: UInt64) -> [UInt8] {
        let headerSize = 36
        var bytes = [UInt8](repeating: 0, count: Offset.end)
        func put(_ value: some FixedWidthInteger, at offset: Int) {
            var encoded: [UInt8] = []
            encoded.append(littleEndian: value)
            bytes.replaceSubrange(offset..<offset + encoded.count, with: encoded)
        }
        /// A generic address (5.2.3.2): a register of one byte at a port, accessed as a byte.
        func put(port: UInt16, at offset: Int) {
            bytes.replaceSubrange(offset..<offset + 4, with: [AML.Space.ports.rawValue, 8, 0, 1])
            put(UInt64(port), at: offset + 4)
        }
        put(BootArchitecture.noVGA | BootArchitecture.noClock, at: Offset.bootArchitecture)
        put(
            Flag.noFixedPowerButton | Flag.noFixedSleepButton | Flag.resetRegister | Flag.hardwareReduced,
            at: Offset.flags)
        put(port: ACPIPort.reset, at: Offset.resetRegister)
        put(ACPIPort.resetValue, at: Offset.resetValue)
        put(3 as UInt8, at: Offset.minorVersion)
        put(dsdt, at: Offset.dsdt)
        put(port: ACPIPort.sleepControl, at: Offset.sleepControl)
        put(port: ACPIPort.sleepStatus, at: Offset.sleepStatus)
        bytes.replaceSubrange(Offset.hypervisor..<Offset.end, with: Array("MARTLET ".utf8))
        return ACPITables.table("FACP", revision: 6, Array(bytes[headerSize...]))
    }
}
