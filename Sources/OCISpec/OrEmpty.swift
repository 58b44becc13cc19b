/// A value that config.json may leave out (or give as `null`), which then means the same as an empty one.
public protocol EmptyValue: Codable, Equatable {
    /// The value of a field that is left out.
    static var empty: Self { get }
}

extension Array: EmptyValue where Element: Codable & Equatable {
    public static var empty: [Element] { [] }
}

extension Dictionary: EmptyValue where Key == String, Value: Codable & Equatable {
    public static var empty: [String: Value] { [:] }
}

extension Bool: EmptyValue {
    public static var empty: Bool { false }
}

extension String: EmptyValue {
    public static var empty: String { "" }
}

/// A field that is read as empty when it is missing or `null`, and not written when it is empty.
@propertyWrapper
public struct OrEmpty<Value: EmptyValue>: Codable, Equatable {
    public var wrappedValue: Value

    public init(wrappedValue: Value) { self.wrappedValue = wrappedValue }

    public init(from decoder: any Decoder) throws {
        wrappedValue = try decoder.singleValueContainer().decode(Value.self)
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(wrappedValue)
    }
}

extension OrEmpty: Sendable where Value: Sendable {}

// The compiler's code for Codable uses these overloads, which accept a missing key.
extension KeyedDecodingContainer {
    public func decode<Value>(_ type: OrEmpty<Value>.Type, forKey key: Key) throws -> OrEmpty<Value> {
        OrEmpty(wrappedValue: try decodeIfPresent(Value.self, forKey: key) ?? Value.empty)
    }
}

extension KeyedEncodingContainer {
    public mutating func encode<Value>(_ value: OrEmpty<Value>, forKey key: Key) throws {
        if value.wrappedValue != Value.empty { try encode(value.wrappedValue, forKey: key) }
    }
}
