/// Builds a netlink message: its header, the family's header and attributes (netlink(7), rtnetlink(7)). Numbers are in the
/// host's byte order, which is little-endian here.
public struct NetlinkMessage: Sendable {
    /// NLM_F_*.
    public struct Flags: OptionSet, Sendable {
        public let rawValue: UInt16
        public init(rawValue: UInt16) { self.rawValue = rawValue }
        static let request = Flags(rawValue: 1)
        static let acknowledge = Flags(rawValue: 4)
        static let dump = Flags(rawValue: 0x300)
        static let replace = Flags(rawValue: 0x100)
        static let exclusive = Flags(rawValue: 0x200)
        static let create = Flags(rawValue: 0x400)
        static let append = Flags(rawValue: 0x800)
    }

    static let headerSize = 16
    private(set) var bytes: [UInt8] = []

    init(_ type: UInt16, _ flags: Flags) {
        bytes.append(littleEndian: UInt32(0))
        bytes.append(littleEndian: type)
        bytes.append(littleEndian: flags.union(.request).rawValue)
        bytes.append(littleEndian: UInt32(0))
        bytes.append(littleEndian: UInt32(0))
    }

    /// The message's bytes, with its length and sequence number.
    func finished(sequence: UInt32) -> [UInt8] {
        var bytes = bytes
        bytes.replaceSubrange(0..<4, with: Self.octets(UInt32(bytes.count)))
        bytes.replaceSubrange(8..<12, with: Self.octets(sequence))
        return bytes
    }

    mutating func put(_ number: some FixedWidthInteger) { bytes.append(littleEndian: number) }

    mutating func attribute(_ type: UInt16, _ content: [UInt8]) {
        put(UInt16(4 + content.count))
        put(type)
        bytes += content
        bytes.append(contentsOf: repeatElement(0, count: -content.count & 3))
    }

    mutating func attribute(_ type: UInt16, _ number: some FixedWidthInteger) {
        attribute(type, Self.octets(number))
    }

    /// Adds a text attribute, which ends with NUL.
    mutating func attribute(_ type: UInt16, text: String) { attribute(type, Array(text.utf8) + [0]) }

    /// Adds an attribute that contains attributes.
    mutating func nested(_ type: UInt16, _ body: (inout NetlinkMessage) -> Void) {
        let start = bytes.count
        put(UInt16(0))
        put(type)
        body(&self)
        bytes.replaceSubrange(start..<start + 2, with: Self.octets(UInt16(bytes.count - start)))
    }

    private static func octets(_ number: some FixedWidthInteger) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.append(littleEndian: number)
        return bytes
    }
}

/// A message that the kernel sent.
struct NetlinkReply: Sendable {
    var type: UInt16
    var flags: UInt16
    var sequence: UInt32
    /// The bytes after the netlink header.
    var payload: ArraySlice<UInt8>

    /// The messages of a datagram. A truncated message at its end is skipped.
    static func parse(_ bytes: ArraySlice<UInt8>) -> [NetlinkReply] {
        var replies: [NetlinkReply] = []
        var rest = bytes
        while rest.count >= NetlinkMessage.headerSize {
            let count = Int(rest.number(0, UInt32.self))
            guard count >= NetlinkMessage.headerSize, count <= rest.count else { break }
            replies.append(
                NetlinkReply(
                    type: rest.number(4, UInt16.self), flags: rest.number(6, UInt16.self),
                    sequence: rest.number(8, UInt32.self), payload: rest.prefix(count).dropFirst(16)))
            rest = rest.dropFirst((count + 3) & ~3)
        }
        return replies
    }

    /// The attributes after a family's header of `count` bytes.
    func attributes(after count: Int) -> NetlinkAttributes { NetlinkAttributes(payload.dropFirst(count)) }
}

/// Attributes by type. When a type occurs twice, the last one counts.
struct NetlinkAttributes {
    private var content: [UInt16: ArraySlice<UInt8>] = [:]

    init(_ bytes: ArraySlice<UInt8>) {
        var rest = bytes
        while rest.count >= 4 {
            let count = Int(rest.number(0, UInt16.self))
            guard count >= 4, count <= rest.count else { break }
            // The two highest bits are flags (NLA_F_NESTED, NLA_F_NET_BYTEORDER).
            content[rest.number(2, UInt16.self) & 0x3fff] = rest.prefix(count).dropFirst(4)
            rest = rest.dropFirst((count + 3) & ~3)
        }
    }

    func bytes(_ type: UInt16) -> [UInt8]? { content[type].map(Array.init) }

    func number(_ type: UInt16) -> UInt32? {
        guard let bytes = content[type], bytes.count >= 4 else { return nil }
        return bytes.number(0, UInt32.self)
    }

    func text(_ type: UInt16) -> String? {
        content[type].map { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }

    func address(_ type: UInt16) -> IPAddress? { content[type].flatMap { IPAddress($0) } }

    func nested(_ type: UInt16) -> NetlinkAttributes? { content[type].map { NetlinkAttributes($0) } }
}

extension ArraySlice<UInt8> {
    /// The number at `offset`; 0 when there are too few bytes.
    func number<Number: FixedWidthInteger>(_ offset: Int, _ type: Number.Type) -> Number {
        guard count >= offset + MemoryLayout<Number>.size else { return 0 }
        return withUnsafeBytes { Number(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: Number.self)) }
    }
}
