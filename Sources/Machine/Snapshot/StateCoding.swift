import LinuxSystem

/// Writes a machine's state: numbers in little-endian order, and bytes after their length.
struct StateWriter {
    private(set) var bytes: [UInt8] = []

    mutating func add(_ number: some FixedWidthInteger) { bytes.append(littleEndian: number) }

    mutating func add(_ flag: Bool) { bytes.append(flag ? 1 : 0) }

    mutating func add(bytes other: [UInt8]) {
        add(UInt32(clamping: other.count))
        bytes += other
    }

    /// A count, and each element.
    mutating func add<Element>(each elements: [Element], _ body: (inout StateWriter, Element) -> Void) {
        add(UInt32(clamping: elements.count))
        for element in elements { body(&self, element) }
    }
}

/// Reads what `StateWriter` wrote. Nothing that is read is trusted: a state that is cut off, or has a count that can't be, is an
/// error that names the section and the field.
struct StateReader {
    private let section: String
    private var rest: ArraySlice<UInt8>

    init(_ section: String, _ bytes: ArraySlice<UInt8>) {
        self.section = section
        rest = bytes
    }

    /// An error in this section.
    func error(_ reason: String) -> MachineError { MachineError("machine state, \(section): \(reason)") }

    private mutating func take(_ count: Int, _ field: String) throws(MachineError) -> ArraySlice<UInt8> {
        guard count <= rest.count else { throw error("\(field) is cut off") }
        defer { rest = rest.dropFirst(count) }
        return rest.prefix(count)
    }

    mutating func number<Number: FixedWidthInteger>(_ field: String, _: Number.Type = Number.self) throws(MachineError)
        -> Number
    {
        try take(Number.bitWidth / 8, field).withUnsafeBytes { Number(littleEndian: $0.loadUnaligned(as: Number.self)) }
    }

    mutating func flag(_ field: String) throws(MachineError) -> Bool {
        let value = try number(field, UInt8.self)
        guard value <= 1 else { throw error("\(field) is \(value), not 0 or 1") }
        return value == 1
    }

    mutating func bytes(_ field: String) throws(MachineError) -> [UInt8] {
        let count = try number(field, UInt32.self)
        return Array(try take(Int(count), field))
    }

    /// A list of at most `most` elements.
    mutating func each<Element>(
        _ field: String, atMost most: Int, _ body: (inout StateReader) throws(MachineError) -> Element
    ) throws(MachineError) -> [Element] {
        let count = try number(field, UInt32.self)
        guard count <= UInt32(most) else { throw error("\(count) elements of \(field), more than \(most)") }
        var elements: [Element] = []
        for _ in 0..<count { elements.append(try body(&self)) }
        return elements
    }

    func finish() throws(MachineError) {
        guard rest.isEmpty else { throw error("\(rest.count) bytes too many") }
    }
}
