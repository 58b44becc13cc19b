import Glibc
import LinuxSystem

/// Reads the headers of a kernel file and checks them against the file's size.
struct ImageReader {
    let file: Int32
    let name: String
    /// Bytes.
    let size: UInt64

    func error(_ reason: String) -> KernelImageError { KernelImageError(name, reason) }

    func bytes(at offset: UInt64, atMost count: Int) throws(KernelImageError) -> HeaderBytes {
        var bytes = [UInt8](repeating: 0, count: count)
        let readCount: Int
        do throws(SystemError) {
            readCount = try retrying("read") { pread(file, &bytes, count, off_t(clamping: offset)) }
        } catch { throw self.error("\(error)") }
        return HeaderBytes(Array(bytes.prefix(readCount)))
    }

    /// ELF-64: the loadable program headers (type 1).
    func elf(_ head: HeaderBytes) throws(KernelImageError) -> KernelImage {
        guard head.u8(4) == 2, head.u8(5) == 1, head.u16(18) == 62 else {
            throw self.error("not a 64-bit x86 ELF file")
        }
        guard let entry = head.u64(24), let offset = head.u64(32), let entrySize = head.u16(54),
            let entries = head.u16(56), entrySize == 56, entries > 0, entries <= 128
        else { throw self.error("broken ELF header: program headers") }
        let tableSize = Int(entries) * 56
        guard offset <= size, UInt64(tableSize) <= size - offset else {
            throw self.error("truncated: program headers lie beyond its end")
        }
        let table = try bytes(at: offset, atMost: tableSize)
        guard table.count == tableSize else { throw self.error("truncated") }
        var segments: [KernelImage.Segment] = []
        for index in 0..<Int(entries) where table.u32(index * 56) == 1 {
            guard let from = table.u64(index * 56 + 8), let address = table.u64(index * 56 + 24),
                let fileCount = table.u64(index * 56 + 32), let memoryCount = table.u64(index * 56 + 40),
                from <= size, fileCount <= size - from
            else { throw self.error("truncated: segment \(index) lies beyond its end") }
            guard fileCount <= memoryCount, !address.addingReportingOverflow(memoryCount).overflow else {
                throw self.error("segment \(index): \(fileCount) bytes of file for \(memoryCount) bytes of memory")
            }
            segments.append(
                .init(fileOffset: from, fileCount: fileCount, address: address, memoryCount: memoryCount))
        }
        if segments.isEmpty { throw self.error("has no loadable segment") }
        return KernelImage(format: .vmlinux, segments: segments, entry: entry)
    }

    /// A bzImage with the boot protocol's 64-bit entry: 0x200 bytes into the protected-mode part, which is loaded at its preferred
    /// address.
    func bzImage(_ head: HeaderBytes) throws(KernelImageError) -> KernelImage {
        guard let sectors = head.u8(0x1f1), let paragraphs = head.u32(0x1f4), let version = head.u16(0x206),
            version >= 0x020c, let limit = head.u32(0x22c), let loadFlags = head.u16(0x236),
            let address = head.u64(0x258), let needed = head.u32(0x260)
        else { throw self.error("boot protocol older than 2.12") }
        let start = (UInt64(sectors == 0 ? 4 : sectors) + 1) * 512
        let count = UInt64(paragraphs) * 16
        if start + count > size { throw self.error("truncated: \(size) bytes of \(start + count)") }
        guard loadFlags & 1 != 0 else { throw self.error("has no 64-bit entry") }
        let memoryCount = max(count, UInt64(needed))
        guard !address.addingReportingOverflow(memoryCount).overflow else {
            throw self.error("its load address \(address) is beyond any memory")
        }
        let segment = KernelImage.Segment(
            fileOffset: start, fileCount: count, address: address, memoryCount: memoryCount)
        var image = KernelImage(format: .bzImage, segments: [segment], entry: address + 0x200)
        // The jump instruction at 0x200 leads to the end of the header.
        let end = min(0x202 + Int(head.u8(0x201) ?? 0), 0x290)
        image.setupHeader = head.slice(0x1f1..<end)
        image.initramfsLimit = UInt64(limit) + 1
        return image
    }
}

/// The little-endian fields of a header; nil beyond its end.
struct HeaderBytes {
    private let bytes: [UInt8]
    init(_ bytes: [UInt8]) { self.bytes = bytes }
    var count: Int { bytes.count }
    func starts(with magic: [UInt8]) -> Bool { bytes.starts(with: magic) }
    func slice(_ range: Range<Int>) -> [UInt8] { Array(bytes[range.clamped(to: bytes.indices)]) }
    private func field(_ offset: Int, _ count: Int) -> UInt64? {
        guard offset >= 0, offset + count <= bytes.count else { return nil }
        return (0..<count).reduce(0) { $0 | UInt64(bytes[offset + $1]) << UInt64($1 * 8) }
    }
    func u8(_ offset: Int) -> UInt8? { field(offset, 1).map { UInt8($0) } }
    func u16(_ offset: Int) -> UInt16? { field(offset, 2).map { UInt16($0) } }
    func u32(_ offset: Int) -> UInt32? { field(offset, 4).map { UInt32($0) } }
    func u64(_ offset: Int) -> UInt64? { field(offset, 8) }
}
