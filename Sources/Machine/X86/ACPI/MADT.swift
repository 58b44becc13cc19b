import LinuxSystem

/// The table of interrupt controllers (ACPI 6.3, 5.2.12): the vCPUs' local APICs and the I/O APIC. There is no PC's pair of
/// 8259s, and so no flag for one.
enum MADT {
    /// - Parameters:
    ///   - cpuCount: vCPUs, whose APIC ids are 0 and up.
    ///   - maximumCPUCount: those and the ones that can be plugged.
    static func table(cpuCount: Int, maximumCPUCount: Int) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.append(littleEndian: UInt32(MemoryMap.localAPIC))
        bytes.append(littleEndian: 0 as UInt32)
        for id in 0..<UInt32(maximumCPUCount) { bytes += localAPIC(id, isEnabled: id < UInt32(cpuCount)) }
        bytes += [1, 12, 0, 0]
        bytes.append(littleEndian: UInt32(MemoryMap.ioAPIC))
        bytes.append(littleEndian: 0 as UInt32)
        return ACPITables.table("APIC", revision: 5, bytes)
    }

    /// The local APIC of a vCPU, which can be enabled later where it is not (5.2.12.2, 5.2.12.12).
    static func localAPIC(_ id: UInt32, isEnabled: Bool) -> [UInt8] {
        let flags: UInt32 = isEnabled ? 1 << 0 : 1 << 1
        var bytes: [UInt8]
        if id < 255 {
            bytes = [0, 8, UInt8(id), UInt8(id)]
            bytes.append(littleEndian: flags)
        } else {
            // 255 is "all" to an APIC with ids of a byte: an x2APIC from there on.
            bytes = [9, 16, 0, 0]
            for word in [id, flags, id] { bytes.append(littleEndian: word) }
        }
        return bytes
    }
}
