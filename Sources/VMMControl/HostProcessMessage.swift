import CLinux
import Glibc
public import LinuxSystem

/// What a pod's server and a container's process on the host tell each other: one packet each over a SOCK_SEQPACKET socket, a
/// little-endian 32-bit word for the kind and, in its upper half, the version, two for numbers, and a path where the kind has one.
///
/// A server that has outlived an upgrade of Martlet starts the container processes of the new one: both sides must speak one
/// version.
public enum HostProcessMessage: Sendable, Equatable {
    // From the server.
    /// A detached mount comes as a descriptor: in the process's own mount namespace it is at this path. The first is at `/`.
    case mount(path: String)
    /// Enter the network namespace that comes as a descriptor, and the jail, as this user. Without one: stay where you are.
    case enter(user: UInt32)
    /// End with this code, 0–255.
    case exit(code: Int32)
    /// End by this signal.
    case end(signal: Int32)
    // From the process.
    /// `enter` is done.
    case entered
    /// `enter` has failed with this errno; the process ends.
    case failed(errno: Int32)
    /// The process got a signal, which is meant for the container.
    case signal(Int32)
    /// The terminal that the process leads has another size, in characters.
    case resized(width: Int32, height: Int32)

    /// Goes up with each change that a program of before would not understand.
    public static let version: UInt32 = 1
    /// Bytes of a packet without a path, and of the longest path.
    private static let (size, longestPath) = (12, 4096)

    private var path: String { if case .mount(let path) = self { path } else { "" } }

    private var words: (UInt32, Int32, Int32) {
        switch self {
        case .mount: (8, 0, 0)
        case .enter(let user): (1, Int32(bitPattern: user), 0)
        case .exit(let code): (2, code, 0)
        case .end(let signal): (3, signal, 0)
        case .entered: (4, 0, 0)
        case .failed(let errno): (5, errno, 0)
        case .signal(let signal): (6, signal, 0)
        case .resized(let width, let height): (7, width, height)
        }
    }

    private init?(_ kind: UInt32, _ first: Int32, _ second: Int32, path: String) {
        switch kind {
        case 8 where path.hasPrefix("/"): self = .mount(path: path)
        case 1: self = .enter(user: UInt32(bitPattern: first))
        case 2: self = .exit(code: first)
        case 3: self = .end(signal: first)
        case 4: self = .entered
        case 5: self = .failed(errno: first)
        case 6: self = .signal(first)
        case 7: self = .resized(width: first, height: second)
        default: return nil
        }
    }

    /// Sends the message, with a copy of a descriptor.
    public func send(over socket: Int32, descriptor: Int32? = nil) throws(SystemError) {
        let (kind, first, second) = words
        guard path.utf8.count <= Self.longestPath else {
            throw SystemError(
                "send", "host process message: a path of \(path.utf8.count) bytes", errno: .fileNameTooLong)
        }
        let words = [Self.version << 16 | kind, UInt32(bitPattern: first), UInt32(bitPattern: second)]
            .map(\.littleEndian)
        let bytes = words.withUnsafeBytes { Array($0) } + Array(path.utf8)
        let descriptors = descriptor.map { [$0] } ?? []
        let sent = martlet_send_descriptors(
            socket, bytes, bytes.count, descriptors, Int32(descriptors.count), Int32(MSG_NOSIGNAL))
        try check("send", "host process message", sent)
    }

    /// Waits for a message.
    ///
    /// - Returns: nil when the peer has closed the socket, or sends something else.
    /// - Throws: `SystemError` that names both versions where the peer speaks another one. The peer is told `failed`, and so learns
    ///   them too.
    public static func receive(
        over socket: SharedDescriptor
    ) throws(SystemError) -> (message: HostProcessMessage, descriptor: SharedDescriptor?)? {
        var bytes = [UInt8](repeating: 0, count: size + longestPath)
        var number: Int32 = -1
        var descriptors: Int32 = 0
        let count = try retrying("receive", "host process message") {
            martlet_receive_descriptors(socket.raw, &bytes, bytes.count, &number, 1, &descriptors, 0)
        }
        let descriptor = descriptors > 0 ? SharedDescriptor(OwnedDescriptor(owning: number)) : nil
        guard count >= size else { return nil }
        let numbers = bytes.withUnsafeBytes { bytes in
            (0..<3).map { UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 4 * $0, as: UInt32.self)) }
        }
        let theirs = numbers[0] >> 16
        guard theirs == version else {
            try? HostProcessMessage.failed(errno: EPROTONOSUPPORT).send(over: socket.raw)
            throw SystemError(
                "receive", "host process message of version \(theirs), where this program speaks version \(version)",
                errno: .init(rawValue: EPROTONOSUPPORT))
        }
        let message = HostProcessMessage(
            numbers[0] & 0xffff, Int32(bitPattern: numbers[1]), Int32(bitPattern: numbers[2]),
            path: String(decoding: bytes[size..<count], as: UTF8.self))
        return message.map { ($0, descriptor) }
    }
}
