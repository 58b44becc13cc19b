import LinuxSystem

/// A piece of ACPI machine language, the byte code that describes devices to a guest (ACPI 6.3, chapter 20).
///
/// The factories below have the names of the source language's operators. Names and sizes are the program's own, never
/// a guest's: a name that is none is a mistake in this module, and ends the process.
struct AML: Equatable {
    var bytes: [UInt8]

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    static func + (one: AML, other: AML) -> AML { AML(one.bytes + other.bytes) }
}

// MARK: Data (20.2.3)

extension AML {
    static let zero = AML([0x00])
    static let one = AML([0x01])

    /// A number in the shortest form that holds it.
    static func integer(_ value: UInt64) -> AML {
        var bytes: [UInt8] = []
        switch value {
        case 0: return zero
        case 1: return one
        case ...0xFF: bytes = [0x0A, UInt8(value)]
        case ...0xFFFF:
            bytes = [0x0B]
            bytes.append(littleEndian: UInt16(value))
        case ...0xFFFF_FFFF:
            bytes = [0x0C]
            bytes.append(littleEndian: UInt32(value))
        default:
            bytes = [0x0E]
            bytes.append(littleEndian: value)
        }
        return AML(bytes)
    }

    static func string(_ text: String) -> AML {
        precondition(text.utf8.allSatisfy { (0x01...0x7F).contains($0) }, "an AML string is ASCII")
        return AML([0x0D] + text.utf8 + [0x00])
    }

    static func buffer(_ content: [UInt8]) -> AML {
        sized([0x11], integer(UInt64(content.count)) + AML(content))
    }

    static func package(_ elements: [AML]) -> AML {
        sized([0x12], AML([UInt8(elements.count)]) + join(elements))
    }

    /// A Plug and Play identifier such as `PNP0C0C`: three letters of five bits and four hexadecimal digits, highest
    /// bits first, as a number (19.6.37).
    static func eisaID(_ name: String) -> AML {
        let characters = Array(name.utf8)
        guard characters.count == 7, characters.prefix(3).allSatisfy({ (0x41...0x5A).contains($0) }),
            let digits = UInt32(name.suffix(4), radix: 16)
        else { preconditionFailure("\(name) is no EISA identifier") }
        let letters = characters.prefix(3).reduce(0 as UInt32) { $0 << 5 | UInt32($1 - 0x40) }
        return integer(UInt64((letters << 16 | digits).byteSwapped))
    }
}

// MARK: Objects (20.2.5)

extension AML {
    static func name(_ path: String, _ value: AML) -> AML { AML([0x08]) + self.path(path) + value }

    static func scope(_ path: String, _ content: [AML]) -> AML { sized([0x10], self.path(path) + join(content)) }

    static func device(_ path: String, _ content: [AML]) -> AML {
        sized([0x5B, 0x82], self.path(path) + join(content))
    }

    static func method(_ path: String, arguments: UInt8, _ content: [AML]) -> AML {
        precondition(arguments <= 7, "a method has at most seven arguments")
        return sized([0x14], self.path(path) + AML([arguments]) + join(content))
    }

    /// Where registers are.
    enum Space: UInt8 {
        case memory = 0
        case ports = 1
    }

    static func operationRegion(_ path: String, _ space: Space, at address: UInt64, size: UInt64) -> AML {
        AML([0x5B, 0x80]) + self.path(path) + AML([space.rawValue]) + integer(address) + integer(size)
    }

    /// Registers of one byte each, from a region's start, accessed byte by byte without the global lock.
    static func byteField(_ region: String, _ names: [String]) -> AML {
        let byteAccess: UInt8 = 1
        let registers = names.map { AML(segment($0)) + AML([8]) }
        return sized([0x5B, 0x81], path(region) + AML([byteAccess]) + join(registers))
    }
}

// MARK: Statements and expressions (20.2.5.3, 20.2.5.4)

extension AML {
    static let local0 = AML([0x60])

    /// Ends a method with a value.
    static func `return`(_ value: AML) -> AML { AML([0xA4]) + value }

    static func store(_ value: AML, in target: AML) -> AML { AML([0x70]) + value + target }

    /// The bits that both have; the result is stored nowhere.
    static func and(_ one: AML, _ other: AML) -> AML { AML([0x7B]) + one + other + AML([0x00]) }

    static func `if`(_ condition: AML, _ content: [AML]) -> AML { sized([0xA0], condition + join(content)) }

    /// Tells the driver of the object at `path` that something happened.
    static func notify(_ path: String, _ value: UInt64) -> AML { AML([0x86]) + self.path(path) + integer(value) }
}

// MARK: Names and lengths (20.2.2, 20.2.4)

extension AML {
    /// A path as the source language writes it: `\_SB.GED`, `_HID`, `\`.
    static func path(_ text: String) -> AML {
        let isAbsolute = text.hasPrefix("\\")
        let names = text.utf8.dropFirst(isAbsolute ? 1 : 0).split(separator: UInt8(ascii: "."))
        let segments = names.flatMap { segment(String(decoding: $0, as: UTF8.self)) }
        let prefix: [UInt8] =
            switch names.count {
            case 0: []
            case 1: []
            case 2: [0x2E]
            default: [0x2F, UInt8(names.count)]
            }
        return AML((isAbsolute ? [UInt8(ascii: "\\")] : []) + prefix + segments + (names.isEmpty ? [0x00] : []))
    }

    /// One name of a path, filled up with underscores to its four characters.
    private static func segment(_ name: String) -> [UInt8] {
        let characters = Array(name.utf8)
        let isName = characters.enumerated().allSatisfy { index, character in
            switch character {
            case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "_"): true
            case UInt8(ascii: "0")...UInt8(ascii: "9"): index > 0
            default: false
            }
        }
        precondition((1...4).contains(characters.count) && isName, "\(name) is no AML name")
        return characters + [UInt8](repeating: UInt8(ascii: "_"), count: 4 - characters.count)
    }

    private static func join(_ pieces: [AML]) -> AML { AML(pieces.flatMap(\.bytes)) }

    /// An operator, the length of what follows it, and that. The length counts its own bytes too: one of six bits, or
    /// the lowest four bits and one to three bytes more.
    private static func sized(_ operation: [UInt8], _ content: AML) -> AML {
        let size = content.bytes.count
        precondition(size < 1 << 28 - 4, "too long for AML")
        if size + 1 < 1 << 6 { return AML(operation + [UInt8(size + 1)]) + content }
        let more = size + 2 < 1 << 12 ? 1 : size + 3 < 1 << 20 ? 2 : 3
        let total = size + 1 + more
        var length = [UInt8(more << 6 | total & 0xF)]
        for index in 0..<more { length.append(UInt8(truncatingIfNeeded: total >> (4 + 8 * index))) }
        return AML(operation + length) + content
    }
}
