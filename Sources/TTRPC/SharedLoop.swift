import Glibc
import LinuxSystem
import NIOCore
import NIOPosix
import Synchronization

/// The thread that serves all connections. It exists as long as the process.
package let sharedLoop = MultiThreadedEventLoopGroup(numberOfThreads: 1)

/// A duration as NIO's type; nil for one that is longer than a century, which means no deadline.
func timeAmount(_ duration: Duration) -> TimeAmount? {
    let (seconds, attoseconds) = duration.components
    // A century fits into Int64's nanoseconds.
    if seconds >= 100 * 365 * 86_400 { return nil }
    // An expired deadline is still a deadline: on the wire, 0 means that there is none.
    return .nanoseconds(max(1, seconds * 1_000_000_000 + attoseconds / 1_000_000_000))
}

/// Duplicates a stream socket's descriptor for NIO, which takes ownership. Checks the socket first, because NIO ends the process
/// for a descriptor that is not a socket or was never connected.
///
/// - Throws: `TTRPCError` when it is not a stream socket of the expected kind.
func duplicate(_ descriptor: SharedDescriptor, listening: Bool) throws(TTRPCError) -> Int32 {
    do {
        let type = try socketOption(SO_TYPE, "SO_TYPE", of: descriptor)
        let listens = try socketOption(SO_ACCEPTCONN, "SO_ACCEPTCONN", of: descriptor) != 0
        if type != Int32(SOCK_STREAM.rawValue) || listens != listening {
            throw TTRPCError(
                .invalidArgument,
                "descriptor \(descriptor.raw) is not a \(listening ? "listening" : "connected") socket")
        }
        if !listening {
            var address = sockaddr_storage()
            var size = socklen_t(MemoryLayout<sockaddr_storage>.size)
            try withUnsafeMutablePointer(to: &address) { pointer throws(SystemError) in
                try pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer throws(SystemError) in
                    _ = try check("getpeername", "\(descriptor.raw)", getpeername(descriptor.raw, pointer, &size))
                }
            }
        }
        return try check("dup", "\(descriptor.raw)", fcntl(descriptor.raw, F_DUPFD_CLOEXEC, 0))
    } catch {
        throw TTRPCError(answering: error)
    }
}

private func socketOption(_ option: Int32, _ name: String, of descriptor: SharedDescriptor) throws(SystemError) -> Int32
{
    var value: Int32 = 0
    var size = socklen_t(MemoryLayout<Int32>.size)
    try check("getsockopt \(name)", "\(descriptor.raw)", getsockopt(descriptor.raw, SOL_SOCKET, option, &value, &size))
    return value
}

/// A flag that is set at most once, from any thread.
final class Flag: Sendable {
    private let value = Atomic(false)
    var isSet: Bool { value.load(ordering: .acquiring) }
    func set() { value.store(true, ordering: .releasing) }
}
