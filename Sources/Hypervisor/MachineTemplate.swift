import CLinux
import Glibc
import LinuxSystem

/// A machine that was saved: a directory with its state and its memory.
public struct MachineTemplate: Sendable, Equatable, Codable {
    /// Absolute path.
    public var directory: String

    public init(directory: String) { self.directory = directory }

    /// As `martlet template list` has it.
    public var name: String { String(directory[(directory.lastIndex(of: "/") ?? directory.startIndex)...].dropFirst()) }

    /// The state of vCPUs and devices, as `martlet-vmm` writes it.
    public var state: String { "\(directory)/state" }
    /// The guest's memory from address 0 on without the gap, of the memory's size. Pages of zeros are holes.
    public var memory: String { "\(directory)/memory" }
}

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
        try eachExtent(of: source, size: size) { bytes, offset in
            var start = 0
            while start < bytes.count {
                var end = start
                while end < bytes.count, !isZero(bytes, at: end) { end += pageSize }
                if end > start {
                    try write(
                        UnsafeRawBufferPointer(rebasing: bytes[start..<min(end, bytes.count)]), to: target,
                        at: offset + Int64(start))
                }
                start = end + pageSize
            }
        }
        try check("fdatasync", "memory", fdatasync(target))
    }

    /// Calls `body` with each part of a file that is not a hole, and where that is.
    private static func eachExtent(
        of file: Int32, size: Int64, _ body: (UnsafeRawBufferPointer, Int64) throws -> Void
    ) throws {
        var position: off_t = 0
        while position < size {
            let data = lseek(file, position, martlet_SEEK_DATA)
            if data < 0, errno == ENXIO { return }
            try check("lseek SEEK_DATA", "memory", data)
            let hole = try check("lseek SEEK_HOLE", "memory", lseek(file, data, martlet_SEEK_HOLE))
            // Whole pages, where the file system's blocks are smaller.
            var start = data & ~off_t(pageSize - 1)
            let end = min((hole + off_t(pageSize - 1)) & ~off_t(pageSize - 1), off_t(size))
            while start < end {
                let count = min(Int(end - start), window)
                let mapping = try Mapping(file: file, offset: Int64(start), count: count, protection: PROT_READ)
                try body(UnsafeRawBufferPointer(start: mapping.base, count: count), Int64(start))
                start += count
            }
            position = end
        }
    }

    private static func isZero(_ bytes: UnsafeRawBufferPointer, at offset: Int) -> Bool {
        guard let page = bytes.baseAddress.map({ $0 + offset }) else { return true }
        // The first word tells of most pages; then each word is the same as the one before.
        return page.load(as: UInt64.self) == 0 && memcmp(page, page + 8, pageSize - 8) == 0
    }

    private static func write(_ bytes: UnsafeRawBufferPointer, to file: Int32, at offset: Int64) throws {
        var done = 0
        while done < bytes.count {
            done += try retrying("write", "memory") {
                pwrite(file, bytes.baseAddress.map { $0 + done }, bytes.count - done, off_t(offset) + off_t(done))
            }
        }
    }
}
