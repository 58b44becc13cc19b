/// A program of classic BPF that takes or drops a frame (Documentation/networking/filter.rst, linux/filter.h). It drops a frame that
/// is too short for what the program reads.
///
/// A program is made of parts that are put one after the other. The parts below end with a decision, or go on with the next part.
public struct PacketFilter: Sendable, Equatable {
    /// struct sock_filter.
    struct Instruction: Sendable, Equatable {
        var code: UInt16
        /// How many instructions a comparison that holds, or does not hold, skips.
        var skipIfTrue: UInt8 = 0
        var skipIfFalse: UInt8 = 0
        var operand: UInt32
    }

    private(set) var instructions: [Instruction]

    private init(_ instructions: [Instruction]) { self.instructions = instructions }

    private init(_ code: UInt16, _ operand: UInt32, skipIfTrue: UInt8 = 0, skipIfFalse: UInt8 = 0) {
        instructions = [.init(code: code, skipIfTrue: skipIfTrue, skipIfFalse: skipIfFalse, operand: operand)]
    }

    /// The parts one after the other.
    public init(_ parts: PacketFilter...) { instructions = parts.flatMap(\.instructions) }

    public static func + (first: PacketFilter, second: PacketFilter) -> PacketFilter {
        PacketFilter(first.instructions + second.instructions)
    }

    // MARK: Decisions

    public static let take = returning(.max)
    public static let drop = returning(0)
    /// What the number means depends on where the program runs.
    static func returning(_ number: UInt32) -> PacketFilter { PacketFilter(0x06, number) }

    // MARK: Reading a number

    /// The byte at an offset from the frame's start.
    public static func byte(_ offset: UInt32) -> PacketFilter { PacketFilter(0x30, offset) }
    /// Two bytes in network order.
    public static func half(_ offset: UInt32) -> PacketFilter { PacketFilter(0x28, offset) }
    /// Four bytes in network order.
    public static func word(_ offset: UInt32) -> PacketFilter { PacketFilter(0x20, offset) }
    /// The byte at an offset that the index is added to.
    public static func indexedByte(_ offset: UInt32) -> PacketFilter { PacketFilter(0x50, offset) }
    /// Two bytes at an offset that the index is added to.
    public static func indexedHalf(_ offset: UInt32) -> PacketFilter { PacketFilter(0x48, offset) }
    /// 1: the kernel has taken a VLAN tag out of the frame (SKF_AD_VLAN_TAG_PRESENT).
    public static let hasVLANTag = PacketFilter(0x30, 0xffff_f000 + 48)

    /// The number's bits that are in the mask.
    public static func masked(_ mask: UInt32) -> PacketFilter { PacketFilter(0x54, mask) }

    /// Makes the index the length of the IPv4 header at an offset.
    public static func indexIPv4Header(_ offset: UInt32) -> PacketFilter { PacketFilter(0xb1, offset) }

    /// Makes the index `(number + 1) * 8`: the length of an IPv6 extension header whose length field is the number (RFC 8200, 4.3).
    public static let indexExtensionHeader = PacketFilter(
        PacketFilter(0x04, 1), PacketFilter(0x24, 8), PacketFilter(0x07, 0))

    // MARK: Conditions on the number that was read last

    /// Runs a part that ends with a decision if the number is one of these.
    public static func ifOne(of numbers: UInt32..., then part: PacketFilter) -> PacketFilter {
        numbers.reduce(PacketFilter()) { $0 + ifEqual($1, part) }
    }

    /// Drops the frame unless the number is one of these.
    public static func require(_ numbers: UInt32...) -> PacketFilter {
        numbers.indices.reduce(PacketFilter()) { program, index in
            // Past the comparisons that follow, and the drop.
            program + PacketFilter(0x15, numbers[index], skipIfTrue: UInt8(numbers.count - index))
        } + drop
    }

    /// Drops the frame unless one of `alternatives` is at an offset.
    ///
    /// - Parameter alternatives: each a whole number of words.
    public static func require(at offset: UInt32, oneOf alternatives: [[UInt8]]) -> PacketFilter {
        alternatives.reversed().reduce(drop) { rest, bytes in
            ifEqual(at: offset, bytes, jump(over: rest)) + rest
        }
    }

    /// Runs a part that ends with a decision if these bytes, a whole number of words, are at an offset.
    public static func ifEqual(at offset: UInt32, _ bytes: [UInt8], _ part: PacketFilter) -> PacketFilter {
        stride(from: bytes.count - 4, through: 0, by: -4).reduce(part) { part, start in
            let number = bytes[start..<start + 4].reduce(0) { $0 << 8 | UInt32($1) }
            return word(offset + UInt32(start)) + ifEqual(number, part)
        }
    }

    private static func ifEqual(_ number: UInt32, _ part: PacketFilter) -> PacketFilter {
        PacketFilter(PacketFilter(0x15, number, skipIfTrue: 1), jump(over: part), part)
    }

    private static func jump(over part: PacketFilter) -> PacketFilter {
        PacketFilter(0x05, UInt32(part.instructions.count))
    }

    /// An array of struct sock_filter.
    public var bytes: [UInt8] {
        var bytes: [UInt8] = []
        for instruction in instructions {
            bytes.append(littleEndian: instruction.code)
            bytes += [instruction.skipIfTrue, instruction.skipIfFalse]
            bytes.append(littleEndian: instruction.operand)
        }
        return bytes
    }

    /// The number of instructions.
    public var count: Int { instructions.count }
}
