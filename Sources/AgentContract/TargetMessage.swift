/// What the agent sends on the stream `StreamNumber.targets`.
///
/// A target is a server on the host that the guest may reach. The host gives each a number and tells the agent of it; the agent
/// asks for connections by these numbers and by no others. For each request the host connects to the target and opens the
/// stream `StreamNumber.targetConnection`, or answers on this stream that it does not: the request's `connection`, 8 bytes,
/// little-endian.
public struct TargetMessage: Equatable, Sendable {
    public enum Kind: UInt32, Sendable {
        /// A connection to the target.
        case connect = 1
        /// A process of the guest passed a descriptor over a connection, which was ended for that: for the host's log.
        case passedDescriptor = 2
    }

    /// Bytes on the wire: kind, target and connection, little-endian.
    public static let encodedSize = 16
    /// How many connections one guest may have to its targets at once, those included that it waits for. The agent asks for no
    /// more; the host refuses what goes beyond it.
    public static let maximumConnections = 256

    public var kind: Kind
    public var target: UInt32
    /// Not 0, and not the number of a connection that the agent asked for before.
    public var connection: UInt64

    public init(_ kind: Kind, target: UInt32, connection: UInt64) {
        (self.kind, self.target, self.connection) = (kind, target, connection)
    }

    /// nil unless there are `encodedSize` bytes with a kind that is known and a number that a connection may have.
    public init?(_ bytes: some Collection<UInt8>) {
        guard bytes.count == Self.encodedSize else { return nil }
        let words = Array(bytes)
        func number(_ range: Range<Int>) -> UInt64 { words[range].reversed().reduce(0) { $0 << 8 | UInt64($1) } }
        let connection = number(8..<16)
        guard let kind = Kind(rawValue: UInt32(number(0..<4))), connection != 0, connection < 1 << 62 else {
            return nil
        }
        self.init(kind, target: UInt32(number(4..<8)), connection: connection)
    }

    public var encoded: [UInt8] {
        (0..<4).map { UInt8(truncatingIfNeeded: kind.rawValue >> (8 * $0)) }
            + (0..<4).map { UInt8(truncatingIfNeeded: target >> (8 * $0)) }
            + (0..<8).map { UInt8(truncatingIfNeeded: connection >> (8 * $0)) }
    }
}
