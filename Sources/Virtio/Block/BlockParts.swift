public import LinuxSystem

/// What a disk is made of: its files, one after the other.
public struct BlockSource: Sendable {
    /// Each part of a disk of several begins at a multiple of so many bytes; what is between two of them reads as zeroes.
    public static let alignment: UInt64 = 4096

    /// A file or block device, and how many bytes of it are the disk's; 0: all that it has now.
    public var parts: [(file: SharedDescriptor, bytes: UInt64)]

    public init(_ parts: [(file: SharedDescriptor, bytes: UInt64)]) { self.parts = parts }

    /// A single file or block device, with all that it has.
    public init(_ file: SharedDescriptor) { parts = [(file, 0)] }
}

/// The places of a disk's parts.
struct BlockParts {
    struct Part {
        let file: Int32
        /// Offset of its first byte on the disk.
        let start: Int
        /// Offset behind its last byte.
        let end: Int
    }

    private let parts: [Part]
    /// Bytes of the whole disk.
    let size: UInt64

    /// - Parameter files: in their order, with their bytes.
    init(_ files: [(file: Int32, bytes: UInt64)]) {
        var parts: [Part] = []
        var end: UInt64 = 0
        for (file, bytes) in files {
            let unit = BlockSource.alignment
            let start = (end + unit - 1) / unit * unit
            end = start + bytes
            parts.append(Part(file: file, start: Int(clamping: start), end: Int(clamping: end)))
        }
        self.parts = parts
        // The last one is filled up too: a partition has whole blocks.
        let unit = files.count > 1 ? BlockSource.alignment : 1
        size = (end + unit - 1) / unit * unit
    }

    /// The part that a byte of the disk is in, or behind which it lies; and where the next one begins.
    subscript(offset: Int) -> (part: Part, next: Int) {
        var (low, high) = (0, parts.count)
        while high - low > 1 {
            let middle = (low + high) / 2
            if parts[middle].start <= offset { low = middle } else { high = middle }
        }
        return (parts[low], high < parts.count ? parts[high].start : Int.max)
    }
}
