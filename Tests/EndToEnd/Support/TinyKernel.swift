/// Kernels of a few instructions, for ends that no Linux comes to: ELF files with one segment, loaded and entered at 1 MiB in
/// 64-bit mode.
enum TinyKernel {
    /// An undefined instruction where there is no table of interrupts: lidt zero(%rip); ud2; zero: .quad 0, 0
    static let tripleFault = elf([0x0f, 0x01, 0x1d, 0x02, 0, 0, 0, 0x0f, 0x0b] + [UInt8](repeating: 0, count: 16))
    /// Goes on where there are only registers, which KVM cannot execute: mov $0xd2000000,%eax; jmp *%rax
    static let lost = elf([0xb8, 0, 0, 0, 0xd2, 0xff, 0xe0])

    private static func elf(_ code: [UInt8]) -> [UInt8] {
        func bytes(_ value: some FixedWidthInteger) -> [UInt8] { withUnsafeBytes(of: value.littleEndian) { Array($0) } }
        let address: UInt64 = 0x10_0000
        let header: [UInt8] =
            [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1] + [UInt8](repeating: 0, count: 9) + bytes(UInt16(2)) + bytes(UInt16(62))
            + bytes(UInt32(1)) + bytes(address) + bytes(UInt64(64)) + bytes(UInt64(0)) + bytes(UInt32(0))
            + bytes(UInt16(64)) + bytes(UInt16(56)) + bytes(UInt16(1)) + [UInt8](repeating: 0, count: 6)
        let segment: [UInt8] =
            bytes(UInt32(1)) + bytes(UInt32(7)) + bytes(UInt64(120)) + bytes(address) + bytes(address)
            + bytes(UInt64(code.count)) + bytes(UInt64(code.count)) + bytes(UInt64(4096))
        return header + segment + code
    }
}
