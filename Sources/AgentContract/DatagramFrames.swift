/// Datagrams on a stream: each is its length, 2 bytes, little-endian, and that many bytes.
public struct DatagramFrames: Sendable {
    /// The longest datagram, bytes.
    public static let maximumLength = 0xffff

    private var received: [UInt8] = []

    public init() {}

    /// A datagram as it goes onto the stream; nil when it is too long.
    public static func encoded(_ datagram: some Collection<UInt8>) -> [UInt8]? {
        guard let length = UInt16(exactly: datagram.count) else { return nil }
        return [UInt8(truncatingIfNeeded: length), UInt8(length >> 8)] + datagram
    }

    /// Takes what came from the stream. To be called when `next` has answered nil, so that no more than one datagram is kept.
    public mutating func append(_ bytes: some Sequence<UInt8>) { received += bytes }

    /// The next whole datagram.
    public mutating func next() -> [UInt8]? {
        guard received.count >= 2 else { return nil }
        let end = 2 + (Int(received[0]) | Int(received[1]) << 8)
        guard received.count >= end else { return nil }
        defer { received.removeFirst(end) }
        return Array(received[2..<end])
    }
}
