import Glibc
import LinuxSystem

/// The file that a machine's memory is in: one of its own, or a template's.
struct GuestMemoryFile: Sendable {
    let file: SharedDescriptor
    /// Bytes.
    let size: Int64
    /// Other pods have the file too: what the guest writes stays out of it.
    let isPrivate: Bool

    init(_ configuration: VMConfiguration) throws {
        size = Int64(configuration.memoryMiB) << 20
        isPrivate = configuration.template != nil
        if let template = configuration.template {
            file = SharedDescriptor(try OwnedDescriptor.open(template.memory, O_RDONLY))
            return
        }
        let name = "martlet-\(configuration.name)"
        file = SharedDescriptor(
            configuration.hugePages
                ? try OwnedDescriptor.hugeMemory(name, size: size) : try OwnedDescriptor.memory(name, size: size))
    }
}

/// A guest's memory, written to a file.
enum MemoryImage {
    private static let pageSize = 4096
    /// Bytes that are looked at, or copied, in one go.
    private static let window = 16 << 20

    /// Writes the pages of a memory file that are not zero.
    ///
    /// - Parameters:
    ///   - source: a memory file of `size` bytes that nobody writes to meanwhile.
    ///   - target: an empty file.
    static func write(_ source: Int32, size: Int64, to target: Int32) throws {
        try check("ftruncate", "memory", ftruncate(target, Int(size)))
        try eachExtent(of: source, in: 0..<size, "memory") { extent in
            for start in stride(from: extent.lowerBound, to: extent.upperBound, by: window) {
                let count = Int(min(extent.upperBound - start, Int64(window)))
                let mapping = try Mapping(file: source, offset: start, count: count, protection: PROT_READ)
                try writePages(UnsafeRawBufferPointer(start: mapping.base, count: count), to: target, at: start)
            }
        }
        try check("fdatasync", "memory", fdatasync(target))
    }

    /// Writes those of some pages that are not zero.
    private static func writePages(_ bytes: UnsafeRawBufferPointer, to target: Int32, at offset: Int64) throws {
        var start = 0
        while start < bytes.count {
            var end = start
            while end < bytes.count, !isZero(bytes, at: end) { end += pageSize }
            if end > start {
                let part = UnsafeRawBufferPointer(rebasing: bytes[start..<end])
                try writeAll(part, to: target, at: offset + Int64(start), "memory")
            }
            start = end + pageSize
        }
    }

    private static func isZero(_ bytes: UnsafeRawBufferPointer, at offset: Int) -> Bool {
        guard let page = bytes.baseAddress.map({ $0 + offset }) else { return true }
        // The first word tells of most pages; then each word is the same as the one before.
        return page.load(as: UInt64.self) == 0 && memcmp(page, page + 8, pageSize - 8) == 0
    }
}
