/// Keys and values sent with a request. A key may occur more than once, as in containerd's implementation.
public struct TTRPCMetadata: Sendable, Equatable, ExpressibleByDictionaryLiteral {
    /// In the order sent.
    public var entries: [(key: String, value: String)]

    public init(dictionaryLiteral elements: (String, String)...) {
        entries = elements.map { (key: $0.0, value: $0.1) }
    }

    /// The first value of `key`.
    public subscript(key: String) -> String? { entries.first { $0.key == key }?.value }

    public static func == (one: Self, other: Self) -> Bool {
        one.entries.elementsEqual(other.entries) { $0 == $1 }
    }
}

/// What a server's method gets beside the request.
public struct TTRPCContext: Sendable {
    public var service: String
    public var method: String
    public var metadata: TTRPCMetadata
    /// The caller's deadline, if it has set one. The method's task is cancelled then.
    public var deadline: ContinuousClock.Instant?
}
