public import LinuxSystem

/// Writes an archive: ustar, with pax's extended headers for what has no room there or no field.
public final class TarWriter {
    private let output: ByteOutput
    /// Of the last entry: content that is still to come, and what fills its last block.
    private var missing: Int64 = 0
    private var padding = 0

    public init(_ descriptor: SharedDescriptor) { output = ByteOutput(descriptor) }

    /// Writes an entry's header. The content of a file follows by `fill`.
    public func add(_ entry: TarEntry) throws {
        precondition(missing == 0, "the last file is not complete")
        var (block, records) = Self.header(entry)
        if !records.values.isEmpty { try writeExtension(records.encoded, of: entry.name) }
        block.seal()
        try output.write(block.bytes)
        missing = entry.size
        padding = (TarBlock.size - Int(entry.size % Int64(TarBlock.size))) % TarBlock.size
        if missing == 0 { padding = 0 }
    }

    /// Has `body` put the next bytes of the last entry's content into a buffer.
    ///
    /// - Parameter body: returns how many it put there, more than none.
    /// - Returns: how many are still missing.
    public func fill(_ body: (UnsafeMutableRawBufferPointer) throws -> Int) throws -> Int64 {
        missing -= Int64(try output.fill(most: Int(min(missing, Int64(ByteInput.capacity))), body))
        if missing == 0 {
            try output.write([UInt8](repeating: 0, count: padding))
            padding = 0
        }
        return missing
    }

    /// Writes the end mark, and everything to the descriptor.
    public func finish() throws {
        try output.write([UInt8](repeating: 0, count: 2 * TarBlock.size))
        try output.flush()
    }

    private static func header(_ entry: TarEntry) -> (TarBlock, PaxRecords) {
        typealias Field = TarBlock.Field
        var (block, records) = (TarBlock(), PaxRecords())
        let name = entry.kind == .directory ? entry.name + [UInt8(ascii: "/")] : entry.name
        block.set(Field.name, name)
        if name.count > Field.name.count { records["path"] = name }
        block.set(Field.linkName, entry.linkTarget)
        if entry.linkTarget.count > Field.linkName.count { records["linkpath"] = entry.linkTarget }
        // Else readers take the two for UTF-8 (POSIX, pax, "hdrcharset").
        if records.values.values.contains(where: { String(validating: $0, as: UTF8.self) == nil }) {
            records["hdrcharset"] = Array("BINARY".utf8)
        }
        block.type = type(entry.kind)
        block.set(Field.magic, Array("ustar\0".utf8))
        block.set(Field.version, Array("00".utf8))
        _ = block.set(Field.mode, Int64(entry.mode & 0o7777))
        let numbers: [(Range<Int>, String, Int64)] = [
            (Field.uid, "uid", Int64(entry.uid)), (Field.gid, "gid", Int64(entry.gid)),
            (Field.size, "size", entry.size),
        ]
        for (field, key, number) in numbers where !block.set(field, number) { records[key] = Array("\(number)".utf8) }
        if !block.set(Field.modified, entry.modified.seconds) || entry.modified.nanoseconds != 0 {
            records["mtime"] = time(entry.modified)
        }
        _ = block.set(Field.deviceMajor, Int64(entry.device.major))
        _ = block.set(Field.deviceMinor, Int64(entry.device.minor))
        for attribute in entry.attributes {
            records[PaxRecords.attributePrefix + String(decoding: attribute.name, as: UTF8.self)] = attribute.value
        }
        return (block, records)
    }

    /// Seconds with nine digits behind the point.
    private static func time(_ time: (seconds: Int64, nanoseconds: Int32)) -> [UInt8] {
        var (seconds, nanoseconds) = time
        var sign = ""
        if seconds < 0 {
            sign = "-"
            if nanoseconds > 0 { (seconds, nanoseconds) = (seconds + 1, 1_000_000_000 - nanoseconds) }
        }
        let digits = "\(nanoseconds)"
        return Array(
            "\(sign)\(seconds.magnitude).\(String(repeating: "0", count: 9 - digits.utf8.count))\(digits)".utf8)
    }

    private static func type(_ kind: TarEntry.Kind) -> UInt8 {
        switch kind {
        case .file: UInt8(ascii: "0")
        case .hardLink: UInt8(ascii: "1")
        case .symbolicLink: UInt8(ascii: "2")
        case .characterDevice: UInt8(ascii: "3")
        case .blockDevice: UInt8(ascii: "4")
        case .directory: UInt8(ascii: "5")
        case .fifo: UInt8(ascii: "6")
        }
    }

    private func writeExtension(_ body: [UInt8], of name: [UInt8]) throws {
        var block = TarBlock()
        let last = name.split(separator: UInt8(ascii: "/")).last ?? []
        block.set(TarBlock.Field.name, Array("PaxHeaders/".utf8) + last.prefix(80))
        block.type = UInt8(ascii: "x")
        block.set(TarBlock.Field.magic, Array("ustar\0".utf8))
        block.set(TarBlock.Field.version, Array("00".utf8))
        _ = block.set(TarBlock.Field.mode, 0o644)
        for field in [TarBlock.Field.uid, TarBlock.Field.gid, TarBlock.Field.modified] { _ = block.set(field, 0) }
        _ = block.set(TarBlock.Field.size, Int64(body.count))
        block.seal()
        let rest = body.count % TarBlock.size
        try output.write(block.bytes + body + [UInt8](repeating: 0, count: rest == 0 ? 0 : TarBlock.size - rest))
    }
}
