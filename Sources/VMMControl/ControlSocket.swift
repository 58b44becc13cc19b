import CLinux
import Glibc
public import LinuxSystem

/// A SOCK_SEQPACKET socket that carries `ControlMessage`s. Sending is thread-safe; one thread receives.
public struct ControlSocket: Sendable {
    public let socket: SharedDescriptor

    public init(_ socket: SharedDescriptor) { self.socket = socket }

    /// Sends one packet with copies of `descriptors`; waits as long as the socket's send timeout lets it.
    public func send(_ message: ControlMessage, descriptors: [Int32] = []) throws(SystemError) {
        let bytes = message.bytes
        let sent = martlet_send_descriptors(
            socket.raw, bytes, bytes.count, descriptors, Int32(descriptors.count), Int32(MSG_NOSIGNAL))
        try check("send control message", "\(message.kind)", sent)
    }

    /// Waits for one packet; nil when the peer has closed.
    public func receive() throws(ControlError) -> (ControlMessage, [SharedDescriptor])? {
        let limit = ControlMessage.maximumDescriptors
        var bytes = [UInt8](repeating: 0, count: ControlMessage.size)
        var numbers = [Int32](repeating: -1, count: limit)
        var count: Int32 = 0
        let received = martlet_receive_descriptors(socket.raw, &bytes, bytes.count, &numbers, Int32(limit), &count, 0)
        if received < 0 {
            if errno == ECONNRESET { return nil }
            throw .system(.last("receive control message"))
        }
        let descriptors = numbers.prefix(Int(count)).map { SharedDescriptor(OwnedDescriptor(owning: $0)) }
        if received == 0 { return nil }
        guard let message = bytes[..<received].withUnsafeBytes({ ControlMessage($0) }) else {
            throw .malformed(received)
        }
        return (message, descriptors)
    }
}

/// What went wrong on a control socket.
public enum ControlError: Error, Equatable, Sendable, CustomStringConvertible {
    case system(SystemError)
    /// A packet of so many bytes that is none of this protocol.
    case malformed(Int)

    public var description: String {
        switch self {
        case .system(let error): "\(error)"
        case .malformed(let count): "malformed control message of \(count) bytes"
        }
    }
}
