import Glibc
public import LinuxSystem

extension PodNetwork {
    /// How long to wait until the taps of a killed process are gone.
    private static let tapTimeout = Duration.seconds(1)
    /// The time between two checks, microseconds.
    private static let pollInterval: UInt32 = 5000

    /// Removes what a killed server has left in a namespace: redirections to its taps, which are gone with it.
    public static func clear(_ namespace: NetworkNamespace) throws(SystemError) {
        let socket = try namespace.run { () throws(SystemError) in try RouteSocket() }
        let end = ContinuousClock.now + tapTimeout
        // An existing tap belongs to a process that is about to end, or to another pod that now uses the namespace.
        while try !clearOnce(socket), ContinuousClock.now < end { usleep(pollInterval) }
    }

    /// Removes the redirections whose tap is gone.
    ///
    /// - Returns: whether no redirection of a pod's interface is left.
    private static func clearOnce(_ socket: RouteSocket) throws(SystemError) -> Bool {
        let links = try socket.links()
        let names = Set(links.map(\.name))
        var isClear = true
        for index in try socket.ingressLinks() {
            guard let link = links.first(where: { $0.index == index }), kinds.contains(link.kind) else { continue }
            if names.contains(Attachment.tapName(index)) || link.name.hasPrefix(Attachment.tapPrefix) {
                isClear = false
            } else {
                try socket.removeIngress(index)
            }
        }
        return isClear
    }
}
