public import LinuxSystem

/// Reads an archive: the formats of POSIX (ustar, pax), GNU tar and star, and what came before them. Not compressed ones.
///
/// Nothing of the archive is believed: sizes are bounded or streamed, numbers are checked, and each name goes to the caller as it is.
public final class TarReader {
    private let input: ByteInput
    /// Of the last entry: content that was not read, and what fills its last block.
    private var unread: Int64 = 0
    private var padding = 0
    /// Records that count for all entries that follow.
    private var global = PaxRecords()
    private var isAtEnd = false

    /// The longest extended header that is read, bytes. A path of Linux has 4096, an attribute 64 KiB.
    private static let longestExtension = 1 << 20
    /// The most extended headers before one entry.
    private static let mostExtensions = 16

    /// - Parameter descriptor: any that can be read; its position is behind the archive when all was read.
    public init(_ descriptor: SharedDescriptor) { input = ByteInput(descriptor) }

    /// The next entry. What was not read of the last one's content is passed over.
    ///
    /// - Returns: nil at the end of the archive; everything that follows it has been read then.
    /// - Throws: `ArchiveError.malformed`, also where the archive ends without its end mark.
    public func next() throws -> TarEntry? {
        if isAtEnd { return nil }
        try content { _ in }
        var records = global
        var long: (name: [UInt8]?, link: [UInt8]?) = (nil, nil)
        for _ in 0...Self.mostExtensions {
            guard let block = try header() else {
                isAtEnd = true
                try input.drain()
                return nil
            }
            switch block.type {
            case UInt8(ascii: "x"), UInt8(ascii: "X"): records.merge(try PaxRecords(try extensionBody(block)))
            case UInt8(ascii: "g"):
                let more = try PaxRecords(try extensionBody(block))
                global.merge(more)
                records.merge(more)
            case UInt8(ascii: "L"): long.name = try longText(block)
            case UInt8(ascii: "K"): long.link = try longText(block)
            // The name of a volume.
            case UInt8(ascii: "V"): _ = try extensionBody(block)
            default: return try entry(block, records, long)
            }
        }
        throw ArchiveError.malformed("more than \(Self.mostExtensions) extended headers before one entry")
    }

    /// Calls `body` with the content of the last entry, piece by piece, as far as it was not read yet.
    public func content(_ body: (UnsafeRawBufferPointer) throws -> Void) throws {
        while unread > 0 {
            let count = try input.take(most: Int(min(unread, Int64(ByteInput.capacity))), body)
            if count == 0 { throw ArchiveError.malformed("it ends in the middle of a file") }
            unread -= Int64(count)
        }
        while padding > 0 {
            let count = try input.take(most: padding) { _ in }
            if count == 0 { throw ArchiveError.malformed("it ends in the middle of a block") }
            padding -= count
        }
    }

    // MARK: Headers

    /// The next header block; nil for the end mark: a block of zeros, which a second one follows.
    private func header() throws -> TarBlock? {
        let bytes = try input.bytes(TarBlock.size)
        let isFirst = input.position <= TarBlock.size
        if isFirst { try refuseCompressed(bytes) }
        if bytes.isEmpty {
            throw ArchiveError.malformed(isFirst ? "it is empty" : "it ends without its end mark")
        }
        guard bytes.count == TarBlock.size else { throw ArchiveError.malformed("it ends in the middle of a block") }
        let block = TarBlock(bytes)
        if block.isZero { return nil }
        guard block.isIntact else {
            throw ArchiveError.malformed(isFirst ? "not a tar archive" : "a header with a wrong checksum")
        }
        return block
    }

    private func refuseCompressed(_ bytes: [UInt8]) throws(ArchiveError) {
        let marks: [(String, [UInt8])] = [
            ("gzip", [0x1f, 0x8b]), ("bzip2", Array("BZh".utf8)), ("xz", [0xfd, 0x37, 0x7a, 0x58, 0x5a]),
            ("zstd", [0x28, 0xb5, 0x2f, 0xfd]),
        ]
        for (name, mark) in marks where bytes.starts(with: mark) {
            throw .unsupported("compression (\(name))")
        }
    }

    private func extensionBody(_ block: TarBlock) throws -> [UInt8] {
        let size = try block.number(TarBlock.Field.size, "the size of an extended header")
        guard (0...Int64(Self.longestExtension)).contains(size) else {
            throw ArchiveError.malformed("an extended header of \(size) bytes")
        }
        (unread, padding) = Self.extent(size)
        var body: [UInt8] = []
        try content { body.append(contentsOf: $0) }
        return body
    }

    private func longText(_ block: TarBlock) throws -> [UInt8] {
        Array(try extensionBody(block).prefix { $0 != 0 })
    }

    private static func extent(_ size: Int64) -> (content: Int64, padding: Int) {
        let part = Int(size % Int64(TarBlock.size))
        return (size, part == 0 ? 0 : TarBlock.size - part)
    }

    // MARK: Entries

    private func entry(
        _ block: TarBlock, _ records: PaxRecords, _ long: (name: [UInt8]?, link: [UInt8]?)
    ) throws -> TarEntry {
        if records.values.keys.contains(where: { $0.hasPrefix("GNU.sparse.") }) {
            throw ArchiveError.unsupported("a sparse file")
        }
        let name = try records.path("path") ?? long.name ?? block.name
        let kind = try kind(block.type, name)
        let size = try records.number("size") ?? block.number(TarBlock.Field.size, "\(shown(name)): its size")
        guard (0...Int64.max / 2).contains(size) else {
            throw ArchiveError.malformed("\(shown(name)): a size of \(size) bytes")
        }
        var entry = TarEntry(kind, name.trimmed, size: kind == .file ? size : 0)
        (unread, padding) = Self.extent(entry.size)
        entry.mode =
            UInt32(truncatingIfNeeded: try block.number(TarBlock.Field.mode, "\(shown(name)): its mode")) & 0o7777
        entry.uid = try owner(records.number("uid") ?? block.number(TarBlock.Field.uid, shown(name)), name)
        entry.gid = try owner(records.number("gid") ?? block.number(TarBlock.Field.gid, shown(name)), name)
        entry.modified =
            try records.time("mtime") ?? (block.number(TarBlock.Field.modified, "\(shown(name)): its time"), 0)
        if kind == .symbolicLink || kind == .hardLink {
            entry.linkTarget = try records.path("linkpath") ?? long.link ?? block.text(TarBlock.Field.linkName)
        }
        if kind == .characterDevice || kind == .blockDevice {
            entry.device = (
                try device(block, TarBlock.Field.deviceMajor, name), try device(block, TarBlock.Field.deviceMinor, name)
            )
        }
        entry.attributes = records.attributes
        return entry
    }

    private func kind(_ type: UInt8, _ name: [UInt8]) throws(ArchiveError) -> TarEntry.Kind {
        switch type {
        // Before POSIX a directory was a file whose name ends with a slash.
        case 0, UInt8(ascii: "0"), UInt8(ascii: "7"): name.last == UInt8(ascii: "/") ? .directory : .file
        case UInt8(ascii: "1"): .hardLink
        case UInt8(ascii: "2"): .symbolicLink
        case UInt8(ascii: "3"): .characterDevice
        case UInt8(ascii: "4"): .blockDevice
        case UInt8(ascii: "5"): .directory
        case UInt8(ascii: "6"): .fifo
        case UInt8(ascii: "S"): throw .unsupported("\(shown(name)): a sparse file")
        default: throw .unsupported("\(shown(name)): an entry of type \(shown([type]))")
        }
    }

    private func owner(_ number: Int64, _ name: [UInt8]) throws(ArchiveError) -> UInt32 {
        // The highest number means "as it is" to the kernel.
        guard let id = UInt32(exactly: number), id != .max else {
            throw .malformed("\(shown(name)): an owner of number \(number)")
        }
        return id
    }

    private func device(_ block: TarBlock, _ field: Range<Int>, _ name: [UInt8]) throws(ArchiveError) -> UInt32 {
        let number = try block.number(field, "\(shown(name)): its device")
        // Linux has no higher ones, and the field's digits end here.
        guard let part = UInt32(exactly: number), part < 1 << 21 else {
            throw .malformed("\(shown(name)): a device of number \(number)")
        }
        return part
    }
}

extension [UInt8] {
    /// Without slashes at its end, unless there is nothing else.
    fileprivate var trimmed: [UInt8] {
        var result = self
        while result.count > 1, result.last == UInt8(ascii: "/") { result.removeLast() }
        return result
    }
}
