import AgentContract
import CLinux
import Glibc
import LinuxSystem

/// A server on the host that the guest may reach.
enum Target: Sendable, Hashable, CustomStringConvertible {
    /// A Unix stream socket, by its path on the host.
    case socket(path: String)
    /// A resolver's TCP port, in the pod's network namespace.
    case stream(InternetAddress)
    /// A resolver's UDP port, in the pod's network namespace.
    case datagrams(InternetAddress)

    /// How long a server may take to accept a connection.
    private static let limit = Duration.seconds(10)
    /// How long a UDP socket is kept on which nothing moves.
    private static let idle = Duration.seconds(10)

    var description: String {
        switch self {
        case .socket(let path): "socket \(path)"
        case .stream(let address): "resolver \(address) (TCP)"
        case .datagrams(let address): "resolver \(address) (UDP)"
        }
    }

    /// A socket that is connected to it. Blocks.
    func connect(in namespace: NetworkNamespace?) throws -> SharedDescriptor {
        switch self {
        case .socket(let path): try HostSocket.connect(path, within: Self.limit)
        case .stream(let address): try Self.connect(address, SOCK_STREAM, namespace)
        case .datagrams(let address): try Self.connect(address, SOCK_DGRAM, namespace)
        }
    }

    private static func connect(
        _ address: InternetAddress, _ type: __socket_type, _ namespace: NetworkNamespace?
    ) throws -> SharedDescriptor {
        guard let namespace else { throw SandboxError.wrongState("the pod has no network namespace") }
        return try namespace.run { () throws(SystemError) in
            SharedDescriptor(try address.connected(type, within: limit))
        }
    }

    /// Carries a connection to its end. Blocks.
    ///
    /// - Parameters:
    ///   - local: as `connect` has made it.
    ///   - guest: the stream to the agent.
    func carry(_ local: SharedDescriptor, _ guest: SharedDescriptor) -> SocketRelay.End {
        switch self {
        case .socket, .stream: return SocketRelay.carry(local: local, machine: guest, linger: .seconds(2))
        case .datagrams:
            Self.carryDatagrams(local, guest)
            return .closed
        }
    }

    private static func carryDatagrams(_ local: SharedDescriptor, _ guest: SharedDescriptor) {
        var frames = DatagramFrames()
        var buffer = [UInt8](repeating: 0, count: DatagramFrames.maximumLength)
        setSendTimeout(guest.raw, idle)
        while true {
            var items = [local, guest].map { pollfd(fd: $0.raw, events: Int16(POLLIN), revents: 0) }
            let count = poll(&items, 2, Int32(idle / .milliseconds(1)))
            if count < 0, errno == EINTR { continue }
            if count <= 0 { return }
            if items[1].revents != 0 {
                let length = recv(guest.raw, &buffer, buffer.count, Int32(MSG_DONTWAIT))
                guard length > 0 else { return }
                frames.append(buffer[..<length])
                while let datagram = frames.next() {
                    // One that gets lost is no error, as ever with UDP.
                    _ = send(local.raw, datagram, datagram.count, Int32(MSG_NOSIGNAL | MSG_DONTWAIT))
                }
            }
            if items[0].revents != 0 {
                let length = recv(local.raw, &buffer, buffer.count, Int32(MSG_DONTWAIT))
                // ECONNREFUSED: nobody listens there any more.
                guard length >= 0, let frame = DatagramFrames.encoded(buffer[..<length]) else { return }
                var sent = 0
                while sent < frame.count {
                    let part = frame[sent...].withUnsafeBytes {
                        send(guest.raw, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
                    }
                    guard part > 0 else { return }
                    sent += part
                }
            }
        }
    }
}
