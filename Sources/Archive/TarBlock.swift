/// A header block of an archive: 512 bytes with fields at fixed places.
///
/// Source: POSIX.1-2017, pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format".
struct TarBlock {
    static let size = 512

    /// The fields: where they begin and how long they are.
    enum Field {
        static let name = 0..<100
        static let mode = 100..<108
        static let uid = 108..<116
        static let gid = 116..<124
        static let size = 124..<136
        static let modified = 136..<148
        static let checksum = 148..<156
        static let type = 156
        static let linkName = 157..<257
        static let magic = 257..<263
        static let version = 263..<265
        static let deviceMajor = 329..<337
        static let deviceMinor = 337..<345
        static let prefix = 345..<500
        /// Of star's own format, which has a shorter prefix.
        static let starPrefix = 345..<476
        static let starMark = 508..<512
    }

    private(set) var bytes: [UInt8]

    init() { bytes = [UInt8](repeating: 0, count: Self.size) }

    /// - Parameter bytes: as many as a block has.
    init(_ bytes: [UInt8]) { self.bytes = bytes }

    var isZero: Bool { bytes.allSatisfy { $0 == 0 } }

    var type: UInt8 {
        get { bytes[Field.type] }
        set { bytes[Field.type] = newValue }
    }

    /// The bytes of a field up to the first zero.
    func text(_ field: Range<Int>) -> [UInt8] { Array(bytes[field].prefix { $0 != 0 }) }

    /// The name, with the prefix that ustar has for long ones.
    var name: [UInt8] {
        let name = text(Field.name)
        // GNU's older format has "ustar " and other fields there.
        guard Array(bytes[Field.magic]) == Array("ustar\0".utf8) else { return name }
        let isStar = Array(bytes[Field.starMark]) == Array("tar\0".utf8)
        let prefix = text(isStar ? Field.starPrefix : Field.prefix)
        return prefix.isEmpty ? name : prefix + [UInt8(ascii: "/")] + name
    }

    // MARK: Numbers

    /// A number: octal digits, or where the first bit is set, binary (GNU's and star's extension).
    ///
    /// - Parameter what: for the error.
    func number(_ field: Range<Int>, _ what: String) throws(ArchiveError) -> Int64 {
        let value = bytes[field][field.lowerBound] & 0x80 != 0 ? binary(field) : octal(field)
        guard let value else { throw .malformed("\(what): not a number") }
        return value
    }

    private func binary(_ field: Range<Int>) -> Int64? {
        // Two's complement over all bits but the first.
        let isNegative = bytes[field.lowerBound] & 0x40 != 0
        let flip: UInt8 = isNegative ? 0xff : 0
        var value: UInt64 = 0
        for index in field {
            var byte = bytes[index] ^ flip
            if index == field.lowerBound { byte &= 0x7f }
            if value >> 55 != 0 { return nil }
            value = value << 8 | UInt64(byte)
        }
        return isNegative ? ~Int64(value) : Int64(value)
    }

    private func octal(_ field: Range<Int>) -> Int64? {
        let padding: [UInt8] = [0, UInt8(ascii: " ")]
        let digits = bytes[field].drop { padding.contains($0) }.prefix { !padding.contains($0) }
        var value: Int64 = 0
        for digit in digits {
            guard (UInt8(ascii: "0")...UInt8(ascii: "7")).contains(digit), value < Int64.max >> 3 else { return nil }
            value = value << 3 | Int64(digit - UInt8(ascii: "0"))
        }
        return value
    }

    /// Writes a number as octal digits and a zero.
    ///
    /// - Returns: whether there was room; otherwise the field has a zero as its value.
    mutating func set(_ field: Range<Int>, _ number: Int64) -> Bool {
        let digits = field.count - 1
        let fits = number >= 0 && number >> (3 * min(digits, 20)) == 0
        var rest = fits ? number : 0
        for index in (field.lowerBound..<field.lowerBound + digits).reversed() {
            bytes[index] = UInt8(ascii: "0") + UInt8(rest & 7)
            rest >>= 3
        }
        bytes[field.upperBound - 1] = 0
        return fits
    }

    /// Writes text, cut to the field.
    mutating func set(_ field: Range<Int>, _ text: [UInt8]) {
        for (index, byte) in zip(field, text) { bytes[index] = byte }
    }

    // MARK: The checksum

    /// Whether the checksum is right. Some old programs have added the bytes as signed ones.
    var isIntact: Bool {
        guard let stored = octal(Field.checksum) else { return false }
        return stored == sum { Int64($0) } || stored == sum { Int64(Int8(bitPattern: $0)) }
    }

    /// Writes the checksum, after everything else.
    mutating func seal() {
        var digits = sum { Int64($0) }
        for index in (Field.checksum.lowerBound..<Field.checksum.lowerBound + 6).reversed() {
            bytes[index] = UInt8(ascii: "0") + UInt8(digits & 7)
            digits >>= 3
        }
        bytes[Field.checksum.lowerBound + 6] = 0
        bytes[Field.checksum.lowerBound + 7] = UInt8(ascii: " ")
    }

    private func sum(_ value: (UInt8) -> Int64) -> Int64 {
        var sum: Int64 = 0
        for (index, byte) in bytes.enumerated() {
            sum += Field.checksum.contains(index) ? Int64(UInt8(ascii: " ")) : value(byte)
        }
        return sum
    }
}
