import Glibc
import LinuxSystem

/// What kind of guest kernel a file holds, found out before a hypervisor is given it.
public enum KernelImage: Sendable, Equatable {
    /// An uncompressed x86-64 ELF kernel.
    case vmlinux
    /// A compressed kernel in the boot protocol's format.
    case bzImage

    /// Reads the headers of `path` and checks that what they promise lies inside the file.
    ///
    /// Sources: ELF-64 object file format; Documentation/arch/x86/boot.rst.
    ///
    /// - Throws: `HypervisorError` that says what is wrong with the file.
    public static func inspect(_ path: String) throws -> KernelImage {
        let file = try openImage(path)
        var facts = stat()
        try check("stat", path, fstat(file.raw, &facts))
        guard facts.st_mode & S_IFMT == S_IFREG else {
            throw HypervisorError("guest kernel \(path): not a regular file")
        }
        let size = UInt64(clamping: facts.st_size)
        var head = [UInt8](repeating: 0, count: 4096)
        let count = try retrying("read", path) { pread(file.raw, &head, head.count, 0) }
        let bytes = Bytes(Array(head.prefix(count)))
        if bytes.starts(with: [0x7f, 0x45, 0x4c, 0x46]) {
            try checkELF(bytes, file.raw, size, path)
            return .vmlinux
        }
        if bytes.u32(0x202) == 0x5372_6448 {  // "HdrS"
            try checkBzImage(bytes, size, path)
            return .bzImage
        }
        throw HypervisorError("guest kernel \(path): neither an ELF vmlinux nor a bzImage")
    }

    private static func openImage(_ path: String) throws -> SharedDescriptor {
        do { return SharedDescriptor(try OwnedDescriptor.open(path, O_RDONLY)) } catch {
            throw HypervisorError("guest kernel: \(error)")
        }
    }

    private static func checkELF(_ head: Bytes, _ file: Int32, _ size: UInt64, _ path: String) throws {
        func refuse(_ why: String) -> HypervisorError { HypervisorError("guest kernel \(path): \(why)") }
        guard head.u8(4) == 2, head.u8(5) == 1, head.u16(18) == 62 else { throw refuse("not a 64-bit x86 ELF file") }
        guard let offset = head.u64(32), let entrySize = head.u16(54), let entries = head.u16(56), entrySize == 56,
            entries > 0, entries <= 128
        else { throw refuse("broken ELF header: program headers") }
        let tableSize = Int(entries) * 56
        guard offset <= size, UInt64(tableSize) <= size - offset else {
            throw refuse("truncated: program headers lie beyond its end")
        }
        var raw = [UInt8](repeating: 0, count: tableSize)
        let count = try retrying("read", path) { pread(file, &raw, tableSize, off_t(clamping: offset)) }
        guard count == tableSize else { throw refuse("truncated") }
        let table = Bytes(raw)
        var loadable = 0
        for entry in 0..<Int(entries) where table.u32(entry * 56) == 1 {
            guard let from = table.u64(entry * 56 + 8), let length = table.u64(entry * 56 + 32), from <= size,
                length <= size - from
            else { throw refuse("truncated: segment \(entry) lies beyond its end") }
            loadable += 1
        }
        if loadable == 0 { throw refuse("nothing to load in it") }
    }

    private static func checkBzImage(_ head: Bytes, _ size: UInt64, _ path: String) throws {
        guard let sectors = head.u8(0x1f1), let paragraphs = head.u32(0x1f4), let version = head.u16(0x206),
            version >= 0x020c
        else { throw HypervisorError("guest kernel \(path): boot protocol older than 2.12") }
        let need = (UInt64(sectors == 0 ? 4 : sectors) + 1) * 512 + UInt64(paragraphs) * 16
        if need > size { throw HypervisorError("guest kernel \(path): truncated: \(size) bytes of \(need)") }
    }
}

/// Little-endian fields of a header; nil beyond its end.
private struct Bytes {
    let bytes: [UInt8]
    init(_ bytes: [UInt8]) { self.bytes = bytes }
    func starts(with magic: [UInt8]) -> Bool { bytes.starts(with: magic) }
    func field(_ offset: Int, _ count: Int) -> UInt64? {
        guard offset >= 0, offset + count <= bytes.count else { return nil }
        return (0..<count).reduce(0) { $0 | UInt64(bytes[offset + $1]) << UInt64($1 * 8) }
    }
    func u8(_ offset: Int) -> UInt8? { field(offset, 1).map { UInt8($0) } }
    func u16(_ offset: Int) -> UInt16? { field(offset, 2).map { UInt16($0) } }
    func u32(_ offset: Int) -> UInt32? { field(offset, 4).map { UInt32($0) } }
    func u64(_ offset: Int) -> UInt64? { field(offset, 8) }
}
