/// Writes a state: numbers in little-endian order, and bytes after their length.
public struct StateWriter {
    /// What has been written.
    public private(set) var bytes: [UInt8] = []

    public init() {}

    /// A number, as many bytes as it has.
    public mutating func add(_ number: some FixedWidthInteger) { bytes.append(littleEndian: number) }

    /// One byte, 0 or 1.
    public mutating func add(_ flag: Bool) { bytes.append(flag ? 1 : 0) }

    /// The bytes after their number, 32 bits.
    public mutating func add(bytes other: [UInt8]) {
        add(UInt32(clamping: other.count))
        bytes += other
    }

    /// A count, and each element.
    public mutating func add<Element>(
        each elements: some Collection<Element>, _ body: (inout StateWriter, Element) -> Void
    ) {
        add(UInt32(clamping: elements.count))
        for element in elements { body(&self, element) }
    }

    /// A section: its number, its length in bytes, and what `body` writes.
    public mutating func add(section: some RawRepresentable<UInt32>, _ body: (inout StateWriter) -> Void) {
        var writer = StateWriter()
        body(&writer)
        add(section.rawValue)
        add(bytes: writer.bytes)
    }
}

/// What is wrong with a state.
public protocol StateFailure: Error {
    /// - Parameter description: one line.
    init(_ description: String)
}

/// Reads what `StateWriter` wrote. Nothing that is read is trusted: a state that is cut off, or has a count that can't be, is an
/// error that names the section and the field.
public struct StateReader<Failure: StateFailure> {
    private let state: String
    private let section: String
    private var rest: ArraySlice<UInt8>

    /// - Parameters:
    ///   - state: what the state is of, for errors: `machine state`.
    ///   - section: the name of the part that `bytes` are, for errors.
    public init(_ state: String, section: String = "file", _ bytes: ArraySlice<UInt8>) {
        self.state = state
        self.section = section
        rest = bytes
    }

    /// An error in this section.
    public func error(_ reason: String) -> Failure { Failure("\(state), \(section): \(reason)") }

    private mutating func take(_ count: Int, _ field: String) throws(Failure) -> ArraySlice<UInt8> {
        guard count <= rest.count else { throw error("\(field) is cut off") }
        defer { rest = rest.dropFirst(count) }
        return rest.prefix(count)
    }

    /// A number.
    ///
    /// - Parameter field: its name, for errors, as with what follows.
    public mutating func number<Number: FixedWidthInteger>(_ field: String, _: Number.Type = Number.self)
        throws(Failure)
        -> Number
    {
        try take(Number.bitWidth / 8, field).withUnsafeBytes { Number(littleEndian: $0.loadUnaligned(as: Number.self)) }
    }

    /// A byte that is 0 or 1.
    public mutating func flag(_ field: String) throws(Failure) -> Bool {
        let value = try number(field, UInt8.self)
        guard value <= 1 else { throw error("\(field) is \(value), not 0 or 1") }
        return value == 1
    }

    /// Bytes after their number.
    public mutating func bytes(_ field: String) throws(Failure) -> [UInt8] {
        let count = try number(field, UInt32.self)
        return Array(try take(Int(count), field))
    }

    /// A list of at most `most` elements.
    public mutating func each<Element>(
        _ field: String, atMost most: Int, _ body: (inout StateReader) throws(Failure) -> Element
    ) throws(Failure) -> [Element] {
        let count = try number(field, UInt32.self)
        guard Int(count) <= most else { throw error("\(count) elements of \(field), more than \(most)") }
        var elements: [Element] = []
        for _ in 0..<count { elements.append(try body(&self)) }
        return elements
    }

    /// The next section, which must be this one.
    public mutating func section(_ section: some RawRepresentable<UInt32>) throws(Failure) -> StateReader {
        let number: UInt32 = try number("section \(section)")
        guard number == section.rawValue else { throw error("section \(number) where \(section) is expected") }
        return StateReader(state, section: "\(section)", try bytes("section \(section)")[...])
    }

    /// - Throws: when something is left.
    public func finish() throws(Failure) {
        guard rest.isEmpty else { throw error("\(rest.count) bytes too many") }
    }
}
