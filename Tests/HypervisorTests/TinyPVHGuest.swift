import Glibc
import LinuxSystem

/// Kernels of a few instructions that QEMU boots: ELF files with a PVH note, loaded at 1 MiB and entered there in 32-bit
/// mode without paging (Xen docs/misc/pvh.pandoc).
enum TinyPVHGuest {
    /// An undefined instruction where there is no table of interrupts: lidt table; ud2; table: 0, 0
    static let tripleFault = elf([0x0f, 0x01, 0x1d, 9, 0, 0x10, 0, 0x0f, 0x0b] + [UInt8](repeating: 0, count: 8))

    /// Prints a line to the first serial port, again and again, with a few milliseconds in between.
    static let beat = elf([
        0x66, 0xba, 0xf8, 0x03,  // mov $0x3f8,%dx
        0xb0, 0x2e, 0xee,  // 1: mov $'.',%al; out %al,%dx
        0xb0, 0x0a, 0xee,  // mov $'\n',%al; out %al,%dx
        0xb9, 0, 0, 0x40, 0,  // mov $0x400000,%ecx
        0x49, 0x75, 0xfd,  // 2: dec %ecx; jnz 2b
        0xeb, 0xf0,  // jmp 1b
    ])

    /// A file with `image` in it.
    static func file(_ image: [UInt8], _ path: String) throws {
        let file = try OwnedDescriptor.open(path, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o600)
        try check("write", path, write(file.raw, image, image.count))
    }

    private static func elf(_ code: [UInt8]) -> [UInt8] {
        let address: UInt64 = 0x10_0000
        var note: [UInt8] = []
        note.append(littleEndian: UInt32(4))
        note.append(littleEndian: UInt32(8))
        note.append(littleEndian: UInt32(18))  // XEN_ELFNOTE_PHYS32_ENTRY
        note += Array("Xen\0".utf8)
        note.append(littleEndian: address)
        let start: UInt64 = 64 + 2 * 56
        var bytes: [UInt8] = [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1] + [UInt8](repeating: 0, count: 9)
        bytes.append(littleEndian: UInt16(2))  // an executable
        bytes.append(littleEndian: UInt16(62))  // of x86-64
        bytes.append(littleEndian: UInt32(1))
        bytes.append(littleEndian: address)
        bytes.append(littleEndian: UInt64(64))
        bytes.append(littleEndian: UInt64(0))
        bytes.append(littleEndian: UInt32(0))
        for field: UInt16 in [64, 56, 2, 0, 0, 0] { bytes.append(littleEndian: field) }
        func header(_ type: UInt32, _ offset: UInt64, _ address: UInt64, _ count: Int, alignment: UInt64) {
            bytes.append(littleEndian: type)
            bytes.append(littleEndian: UInt32(7))
            for field in [offset, address, address, UInt64(count), UInt64(count), alignment] {
                bytes.append(littleEndian: field)
            }
        }
        header(1, start + UInt64(note.count), address, code.count, alignment: 1)
        header(4, start, 0, note.count, alignment: 4)
        return bytes + note + code
    }
}
