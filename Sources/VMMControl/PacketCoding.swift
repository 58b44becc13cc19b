import LinuxSystem

/// Writes a message's fields, and collects its descriptors.
struct PacketWriter<Descriptor: Sendable> {
    private(set) var body: [UInt8] = []
    private(set) var descriptors: [Descriptor] = []

    mutating func add(_ number: some FixedWidthInteger) { body.append(littleEndian: number) }

    mutating func add(_ flag: Bool) { body.append(flag ? 1 : 0) }

    /// Text in UTF-8 after its length.
    mutating func add(_ text: String) { add(bytes: Array(text.utf8)) }

    /// Bytes after their length.
    mutating func add(bytes: [UInt8]) {
        add(UInt32(clamping: bytes.count))
        body += bytes
    }

    /// A reason, as much of it as a packet has room for.
    mutating func add(reason: String) { add(bytes: Array(reason.utf8.prefix(ControlProtocol.maximumReason))) }

    mutating func add(descriptor: Descriptor) { descriptors.append(descriptor) }
}

/// Reads a message's fields and descriptors in the order in which they were written. Nothing that is read is trusted.
struct PacketReader<Descriptor: Sendable> {
    private var body: ArraySlice<UInt8>
    private var descriptors: ArraySlice<Descriptor>

    init(body: [UInt8], descriptors: [Descriptor]) {
        self.body = body[...]
        self.descriptors = descriptors[...]
    }

    private mutating func take(_ count: Int, _ field: String) throws(FieldError) -> ArraySlice<UInt8> {
        guard count <= body.count else { throw FieldError("\(field) is cut off") }
        defer { body = body.dropFirst(count) }
        return body.prefix(count)
    }

    mutating func number<Number: FixedWidthInteger>(_ field: String, _: Number.Type = Number.self) throws(FieldError)
        -> Number
    {
        try take(Number.bitWidth / 8, field).withUnsafeBytes { Number(littleEndian: $0.loadUnaligned(as: Number.self)) }
    }

    mutating func flag(_ field: String) throws(FieldError) -> Bool {
        let value = try number(field, UInt8.self)
        guard value <= 1 else { throw FieldError("\(field) is \(value), not 0 or 1") }
        return value == 1
    }

    mutating func bytes(_ field: String) throws(FieldError) -> [UInt8] {
        let count = try number(field, UInt32.self)
        return Array(try take(Int(count), field))
    }

    mutating func text(_ field: String) throws(FieldError) -> String {
        guard let text = String(validating: try bytes(field), as: UTF8.self) else {
            throw FieldError("\(field) is not UTF-8")
        }
        return text
    }

    /// A reason, which may be cut off in the middle of a character; as one line, since it may quote what a guest sent.
    mutating func reason(_ field: String) throws(FieldError) -> String {
        printable(String(decoding: try bytes(field), as: UTF8.self), limit: ControlProtocol.maximumReason)
    }

    /// An Ethernet address.
    mutating func hardwareAddress(_ field: String) throws(FieldError) -> [UInt8] {
        let address = try bytes(field)
        guard address.count == 6 else { throw FieldError("\(field) has \(address.count) bytes, not 6") }
        return address
    }

    /// The next descriptor, whose role is `role`.
    mutating func descriptor(_ role: String) throws(FieldError) -> Descriptor {
        guard let descriptor = descriptors.popFirst() else { throw FieldError("no descriptor for \(role)") }
        return descriptor
    }

    /// - Throws: when something is left that the message does not have.
    func finish() throws(FieldError) {
        guard body.isEmpty else { throw FieldError("\(body.count) bytes too many") }
        guard descriptors.isEmpty else { throw FieldError("\(descriptors.count) descriptors too many") }
    }
}

/// What is wrong in a message.
struct FieldError: Error {
    var reason: String
    init(_ reason: String) { self.reason = reason }
}
