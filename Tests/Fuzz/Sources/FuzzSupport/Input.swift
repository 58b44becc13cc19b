/// The bytes of one execution, taken in order. Beyond their end everything is 0.
public struct Input {
    private let bytes: UnsafeRawBufferPointer
    private var offset = 0

    public init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    public var count: Int { bytes.count - offset }
    public var isEmpty: Bool { offset >= bytes.count }

    public mutating func number<Number: FixedWidthInteger>(_: Number.Type = Number.self) -> Number {
        let size = MemoryLayout<Number>.size
        var result: Number = 0
        withUnsafeMutableBytes(of: &result) { target in
            for index in 0..<min(size, max(0, bytes.count - offset)) { target[index] = bytes[offset + index] }
        }
        offset += size
        return Number(littleEndian: result)
    }

    public mutating func byte() -> UInt8 { number() }
    public mutating func word() -> UInt16 { number() }

    /// A number below `limit`, made of one byte.
    public mutating func below(_ limit: Int) -> Int { limit > 0 ? Int(byte()) % limit : 0 }

    /// An element chosen by one byte.
    public mutating func pick<Element>(_ choices: [Element]) -> Element { choices[below(choices.count)] }

    /// A number of the kind that checks get wrong, or any.
    public mutating func number64() -> UInt64 {
        let choice = byte()
        switch choice {
        case 0..<64: return UInt64(choice)
        case 64..<128: return UInt64(1) << UInt64(choice - 64)
        case 128..<192: return (UInt64(1) << UInt64(choice - 128)) &- 1
        case 192: return .max
        case 193..<224: return UInt64(word())
        default: return number()
        }
    }

    /// At most `most` bytes, fewer at the end.
    public mutating func take(_ most: Int) -> [UInt8] {
        let count = max(0, min(most, bytes.count - offset))
        defer { offset += count }
        return Array(bytes[min(offset, bytes.count)..<min(offset, bytes.count) + count])
    }

    /// What is left.
    public mutating func rest() -> [UInt8] { take(count) }
}
