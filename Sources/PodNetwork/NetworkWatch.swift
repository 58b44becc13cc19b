public import LinuxSystem

/// Tells of changes in a network namespace: links, addresses, routes, neighbours. Ends with its value.
public final class NetworkWatch: Sendable {
    private let watch: ChangeWatch

    /// - Parameter onChange: called on a thread of the watch's own, once for changes that come together: an engine makes a
    ///   dozen at once.
    public init(_ namespace: NetworkNamespace, onChange: @escaping @Sendable () -> Void) throws(SystemError) {
        let socket = try namespace.run { () throws(SystemError) in
            try RouteSocket(groups: [.links, .addresses, .routes, .neighbours])
        }
        watch = try ChangeWatch("network watch", socket.socket, drain: { socket.drain() }, onChange: onChange)
    }
}
