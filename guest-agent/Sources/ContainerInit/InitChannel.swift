import CLinux
import Glibc
public import GuestSystem
public import LinuxSystem

/// The messages between the agent and a container init: one packet each, over a SOCK_SEQPACKET pair.
///
/// The init's end closes when it executes the container's program, which the agent reads as success.
public enum InitMessage: Sendable, Equatable {
    /// From the init: it goes on as another process, which has this pid in the guest, and whose pidfd is passed along.
    case entered(pid_t)
    /// From the init: everything is set up. With a terminal, its master is passed along.
    case ready
    /// From the agent: execute.
    case go
    /// From an init that executes no program: its work is done.
    case done
    /// From the init, which then exits.
    case failed(AgentFailure.Kind, String)

    /// Longer failures are cut.
    static let maximumSize = 8192

    var bytes: [UInt8] {
        switch self {
        case .entered(let pid): return [UInt8(ascii: "E")] + "\(pid)".utf8
        case .ready: return [UInt8(ascii: "R")]
        case .go: return [UInt8(ascii: "G")]
        case .done: return [UInt8(ascii: "D")]
        case .failed(let kind, let message):
            let text = [UInt8(ascii: "F")] + kind.rawValue.utf8 + [0] + message.utf8
            return Array(text.prefix(Self.maximumSize))
        }
    }

    init?(bytes: some Collection<UInt8>) {
        switch bytes.first {
        case UInt8(ascii: "E"):
            guard let pid = pid_t(String(decoding: bytes.dropFirst(), as: UTF8.self)), pid > 0 else { return nil }
            self = .entered(pid)
        case UInt8(ascii: "R"): self = .ready
        case UInt8(ascii: "G"): self = .go
        case UInt8(ascii: "D"): self = .done
        case UInt8(ascii: "F"):
            let parts = bytes.dropFirst().split(separator: 0, maxSplits: 1)
            guard parts.count == 2, let kind = AgentFailure.Kind(rawValue: String(decoding: parts[0], as: UTF8.self))
            else { return nil }
            self = .failed(kind, String(decoding: parts[1], as: UTF8.self))
        default: return nil
        }
    }
}

/// One end of the channel between the agent and a container init.
public struct InitChannel: Sendable {
    public let descriptor: SharedDescriptor

    public init(_ descriptor: SharedDescriptor) { self.descriptor = descriptor }

    public func send(_ message: InitMessage, descriptors: [Int32] = []) throws(SystemError) {
        let bytes = message.bytes
        let sent = bytes.withUnsafeBytes {
            martlet_send_descriptors(
                descriptor.raw, $0.baseAddress, $0.count, descriptors, Int32(descriptors.count), 0)
        }
        try check("send to the container init's channel", "", sent)
    }

    /// Blocks for the next message; nil when the other end was closed.
    public func receive() throws(SystemError) -> (message: InitMessage, descriptors: [SharedDescriptor])? {
        var bytes = [UInt8](repeating: 0, count: InitMessage.maximumSize)
        var numbers: [Int32] = [-1, -1]
        var count: Int32 = 0
        let received = try retrying("receive from the container init's channel") {
            bytes.withUnsafeMutableBytes {
                martlet_receive_descriptors(descriptor.raw, $0.baseAddress, $0.count, &numbers, 2, &count, 0)
            }
        }
        let descriptors = numbers.prefix(Int(count)).map { SharedDescriptor(OwnedDescriptor(owning: $0)) }
        if received == 0 { return nil }
        guard let message = InitMessage(bytes: bytes.prefix(received)) else {
            throw SystemError("receive from the container init's channel", "unknown message", errno: .badMessage)
        }
        return (message, descriptors)
    }
}
