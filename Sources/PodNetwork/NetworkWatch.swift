import Glibc
public import LinuxSystem
import Synchronization

/// Tells of changes in a network namespace: links, addresses, routes, neighbours. Ends with its value.
public final class NetworkWatch: Sendable {
    private let stop: SharedDescriptor

    /// How long a change waits for others to come with it, milliseconds: an engine makes a dozen at once.
    private static let pause: Int32 = 20
    /// So many pauses at most, where changes don't end.
    private static let patience = 25

    /// - Parameter onChange: called on a thread of the watch's own, once for changes that come together.
    public init(_ namespace: NetworkNamespace, onChange: @escaping @Sendable () -> Void) throws(SystemError) {
        let socket = try namespace.run { () throws(SystemError) in
            try RouteSocket(groups: [.links, .addresses, .routes, .neighbours])
        }
        let stop = try SharedDescriptor.event()
        self.stop = stop
        try startThread("network watch") {
            while Self.wait(socket.socket.raw, stop.raw, milliseconds: -1) {
                // What comes while nobody waits is kept by the socket.
                for _ in 0..<Self.patience {
                    if !Self.wait(-1, stop.raw, milliseconds: Self.pause) || !socket.drain() { break }
                }
                if Self.isStopped(stop.raw) { return }
                onChange()
            }
        }
    }

    deinit { stop.signal() }

    /// False when the watch has ended.
    private static func wait(_ socket: Int32, _ stop: Int32, milliseconds: Int32) -> Bool {
        var items = [
            pollfd(fd: socket, events: Int16(POLLIN), revents: 0), pollfd(fd: stop, events: Int16(POLLIN), revents: 0),
        ]
        poll(&items, 2, milliseconds)
        return items[1].revents == 0
    }

    private static func isStopped(_ stop: Int32) -> Bool { !wait(-1, stop, milliseconds: 0) }
}
