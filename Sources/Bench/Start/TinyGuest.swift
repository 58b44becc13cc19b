/// A guest of a few instructions: it writes one byte to the first serial port and halts. Its code works both in the 32-bit mode of a
/// PVH entry and in the 64-bit mode of the Linux entry.
enum TinyGuest {
    private static let address: UInt64 = 0x10_0000
    /// mov $0x3f8,%dx; mov $'\n',%al; out %al,(%dx); hlt; jmp to the hlt
    private static let code: [UInt8] = [0x66, 0xba, 0xf8, 0x03, 0xb0, UInt8(ascii: "\n"), 0xee, 0xf4, 0xeb, 0xfd]

    /// An ELF file with one segment, and the note of a PVH entry (Xen's elfnote.h, XEN_ELFNOTE_PHYS32_ENTRY).
    static var image: [UInt8] {
        func bytes(_ value: some FixedWidthInteger) -> [UInt8] { withUnsafeBytes(of: value.littleEndian) { Array($0) } }
        let headers = 64 + 2 * 56
        let note = bytes(UInt32(4)) + bytes(UInt32(8)) + bytes(UInt32(18)) + Array("Xen\0".utf8) + bytes(address)
        let codeOffset = headers + note.count
        func header(type: UInt32, offset: Int, at address: UInt64, count: Int) -> [UInt8] {
            bytes(type) + bytes(UInt32(5)) + bytes(UInt64(offset)) + bytes(address) + bytes(address)
                + bytes(UInt64(count)) + bytes(UInt64(count)) + bytes(UInt64(4))
        }
        let identity: [UInt8] = [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1] + [UInt8](repeating: 0, count: 9)
        let file =
            bytes(UInt16(2)) + bytes(UInt16(62)) + bytes(UInt32(1)) + bytes(address) + bytes(UInt64(64))
            + bytes(UInt64(0)) + bytes(UInt32(0)) + bytes(UInt16(64)) + bytes(UInt16(56)) + bytes(UInt16(2))
            + [UInt8](repeating: 0, count: 6)
        return identity + file
            + header(type: 1, offset: codeOffset, at: address, count: code.count)
            + header(type: 4, offset: headers, at: 0, count: note.count) + note + code
    }
}
