import Glibc
import LinuxSystem
import NIOCore
import NIOPosix
import Synchronization

/// The one thread that moves every connection's bytes. It lives as long as the process.
let sharedLoop = MultiThreadedEventLoopGroup(numberOfThreads: 1)

/// A duration as NIO has it; nil for one that ends too late to count.
func timeAmount(_ duration: Duration) -> TimeAmount? {
    let (seconds, attoseconds) = duration.components
    // A century: beyond it, and well before Int64's nanoseconds end, nobody waits.
    if seconds >= 100 * 365 * 86_400 { return nil }
    // Time that is up already is still a deadline; zero would be none at all on the wire.
    return .nanoseconds(max(1, seconds * 1_000_000_000 + attoseconds / 1_000_000_000))
}

/// A copy of the descriptor for NIO, which closes what it is given.
func duplicate(_ descriptor: SharedDescriptor) throws(TTRPCError) -> Int32 {
    do {
        return try check("dup", "\(descriptor.raw)", fcntl(descriptor.raw, F_DUPFD_CLOEXEC, 0))
    } catch {
        throw TTRPCError(answering: error)
    }
}

/// Something that happens once.
final class Flag: Sendable {
    private let value = Atomic(false)
    var isSet: Bool { value.load(ordering: .acquiring) }
    func set() { value.store(true, ordering: .releasing) }
}
