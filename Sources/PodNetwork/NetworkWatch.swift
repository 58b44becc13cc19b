public import LinuxSystem

/// Watches a network namespace for changes of links, addresses, routes and neighbours. The watch ends when the value is
/// released.
public final class NetworkWatch: Sendable {
    private let watch: ChangeWatch

    /// - Parameter onChange: called on a thread of the watch; once for changes that come close together, since an engine makes a
    ///   dozen in a row.
    public init(_ namespace: NetworkNamespace, onChange: @escaping @Sendable () -> Void) throws(SystemError) {
        let socket = try namespace.run { () throws(SystemError) in
            try RouteSocket(groups: [.links, .addresses, .routes, .neighbours])
        }
        watch = try ChangeWatch("network watch", socket.socket, drain: { socket.drain() }, onChange: onChange)
    }
}
