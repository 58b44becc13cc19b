/// The records of an extended header: keys with values, which stand in place of the fields of the header that follows.
///
/// Source: POSIX.1-2017, pax, "pax Extended Header".
struct PaxRecords {
    /// The last value of each key counts.
    private(set) var values: [String: [UInt8]] = [:]

    /// Where GNU tar, star and bsdtar have extended attributes: behind this the attribute's name follows.
    static let attributePrefix = "SCHILY.xattr."

    init() {}

    /// - Throws: `ArchiveError.malformed` for what is no list of records.
    init(_ bytes: [UInt8]) throws(ArchiveError) {
        var rest = bytes[...]
        while !rest.isEmpty {
            let (key, value) = try Self.next(&rest)
            values[key] = value
        }
    }

    /// Takes one record: its length in decimal digits, a space, the key, `=`, the value, a newline.
    private static func next(_ rest: inout ArraySlice<UInt8>) throws(ArchiveError) -> (String, [UInt8]) {
        let digits = rest.prefix { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
        guard digits.count < 10, let length = Int(String(decoding: digits, as: UTF8.self)),
            length > digits.count + 2, length <= rest.count
        else { throw .malformed("an extended header whose record has no valid length") }
        let record = rest.prefix(length)
        rest = rest.dropFirst(length)
        let body = record.dropFirst(digits.count + 1).dropLast()
        guard record.dropFirst(digits.count).first == UInt8(ascii: " "), record.last == UInt8(ascii: "\n"),
            let equals = body.firstIndex(of: UInt8(ascii: "="))
        else { throw .malformed("an extended header whose record is not KEY=VALUE") }
        return (String(decoding: body[..<equals], as: UTF8.self), Array(body[(equals + 1)...]))
    }

    /// Takes the records of a header that counts for this one entry, or for all that follow; an empty value takes a key away.
    mutating func merge(_ other: PaxRecords) { values.merge(other.values) { _, new in new } }

    // MARK: Values

    /// The value of a key; nil where there is none.
    subscript(key: String) -> [UInt8]? {
        get { values[key].flatMap { $0.isEmpty ? nil : $0 } }
        set { values[key] = newValue }
    }

    /// A path.
    ///
    /// - Throws: `ArchiveError.malformed` where it has a zero byte.
    func path(_ key: String) throws(ArchiveError) -> [UInt8]? {
        guard let value = self[key] else { return nil }
        if value.contains(0) { throw .malformed("\(key): a zero byte in it") }
        return value
    }

    /// A number that is not negative.
    func number(_ key: String) throws(ArchiveError) -> Int64? {
        guard let value = self[key] else { return nil }
        guard let number = Int64(String(decoding: value, as: UTF8.self)), number >= 0 else {
            throw .malformed("\(key): not a number")
        }
        return number
    }

    /// A time: seconds, with digits behind a point.
    func time(_ key: String) throws(ArchiveError) -> (seconds: Int64, nanoseconds: Int32)? {
        guard let value = self[key] else { return nil }
        let parts = value.split(separator: UInt8(ascii: "."), maxSplits: 1, omittingEmptySubsequences: false)
        let fraction = parts.count == 2 ? Array(parts[1].prefix(9)) : []
        let padded = fraction + [UInt8](repeating: UInt8(ascii: "0"), count: 9 - fraction.count)
        guard let first = parts.first, let seconds = Int64(String(decoding: first, as: UTF8.self)),
            let nanoseconds = Int32(String(decoding: padded, as: UTF8.self)), nanoseconds >= 0
        else { throw .malformed("\(key): not a time") }
        if first.first != UInt8(ascii: "-") || nanoseconds == 0 { return (seconds, nanoseconds) }
        // Before the epoch the fraction goes the other way.
        guard seconds > .min else { throw .malformed("\(key): not a time") }
        return (seconds - 1, 1_000_000_000 - nanoseconds)
    }

    /// The extended attributes, by their names.
    var attributes: [TarEntry.Attribute] {
        values.filter { $0.key.hasPrefix(Self.attributePrefix) }.sorted { $0.key < $1.key }.map {
            .init(name: Array($0.key.utf8.dropFirst(Self.attributePrefix.utf8.count)), value: $0.value)
        }
    }

    // MARK: Encoding

    /// The records as bytes, by their keys.
    var encoded: [UInt8] { values.sorted { $0.key < $1.key }.flatMap { Self.record($0.key, $0.value) } }

    private static func record(_ key: String, _ value: [UInt8]) -> [UInt8] {
        // " KEY=VALUE\n"; the length counts its own digits.
        let rest = key.utf8.count + value.count + 3
        var length = rest
        while "\(length)".utf8.count + rest != length { length = "\(length)".utf8.count + rest }
        return Array("\(length) \(key)=".utf8) + value + [UInt8(ascii: "\n")]
    }
}
