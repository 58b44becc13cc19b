import Glibc
import LinuxSystem

/// A connection over the loopback interface to a thread of this process, which answers each byte, or counts all of them and answers
/// each time that a given number has arrived.
final class LoopbackPeer: Sendable {
    /// Bytes of one write to the stream.
    static let piece = 64 << 10

    private let connection: SharedDescriptor

    init(echoes: Bool) throws {
        let listener = SharedDescriptor(OwnedDescriptor(owning: try Self.socket()))
        var address = Self.loopback
        try Self.withAddress(&address) { try check("bind", "127.0.0.1", bind(listener.raw, $0, $1)) }
        try check("listen", "127.0.0.1", listen(listener.raw, 1))
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        try Self.withAddress(&address) { pointer, _ in
            try check("getsockname", "127.0.0.1", getsockname(listener.raw, pointer, &length))
        }
        connection = SharedDescriptor(OwnedDescriptor(owning: try Self.socket()))
        let raw = connection.raw
        // The listener's queue takes the connection before it is accepted.
        try Self.withAddress(&address) { try check("connect", "127.0.0.1", connect(raw, $0, $1)) }
        let accepted = SharedDescriptor(
            OwnedDescriptor(owning: try check("accept", "127.0.0.1", accept(listener.raw, nil, nil))))
        for file in [raw, accepted.raw] { try Self.sendAtOnce(file) }
        try startThread("loopback") {
            if echoes { Self.echo(accepted.raw) } else { Self.receive(accepted.raw) }
        }
    }

    /// One byte there and one back.
    func exchange() throws {
        var byte: UInt8 = 1
        try check("write", "loopback", write(connection.raw, &byte, 1))
        guard read(connection.raw, &byte, 1) == 1 else { throw Refusal("the loopback connection has ended") }
    }

    /// Sends a number of pieces, and waits until all have arrived.
    func send(_ piece: [UInt8], times: Int) throws {
        var header = UInt64(times * piece.count)
        try check("write", "loopback", write(connection.raw, &header, 8))
        for _ in 0..<times {
            var done = 0
            while done < piece.count {
                done += try piece.withUnsafeBytes { bytes in
                    try check("write", "loopback", write(connection.raw, bytes.baseAddress! + done, piece.count - done))
                }
            }
        }
        var byte: UInt8 = 0
        guard read(connection.raw, &byte, 1) == 1 else { throw Refusal("the loopback connection has ended") }
    }

    // MARK: The other side

    private static func echo(_ file: Int32) {
        var byte: UInt8 = 0
        while read(file, &byte, 1) == 1, write(file, &byte, 1) == 1 {}
    }

    private static func receive(_ file: Int32) {
        var buffer = [UInt8](repeating: 0, count: 2 * piece)
        var length: UInt64 = 0
        while recv(file, &length, 8, Int32(MSG_WAITALL)) == 8 {
            var left = Int(length)
            while left > 0 {
                let count = read(file, &buffer, min(left, buffer.count))
                if count <= 0 { return }
                left -= count
            }
            if write(file, &buffer, 1) != 1 { return }
        }
    }

    // MARK: Sockets

    private static var loopback: sockaddr_in {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        return address
    }

    private static func socket() throws -> Int32 {
        try check("socket", "TCP", Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0))
    }

    private static func sendAtOnce(_ file: Int32) throws {
        var on: Int32 = 1
        try check(
            "setsockopt", "TCP_NODELAY",
            setsockopt(file, Int32(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout<Int32>.size)))
    }

    @discardableResult
    private static func withAddress<R>(
        _ address: inout sockaddr_in, _ body: (UnsafeMutablePointer<sockaddr>, socklen_t) throws -> R
    ) rethrows -> R {
        try withUnsafeMutablePointer(to: &address) { pointer in
            try pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                try body($0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
    }
}
