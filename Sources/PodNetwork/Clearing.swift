import Glibc
public import LinuxSystem

extension PodNetwork {
    /// How long a killed process may take until its taps are gone, and between two looks, microseconds.
    private static let patience = Duration.seconds(1)
    private static let pause: UInt32 = 5000

    /// Takes away what a server that was killed left in a namespace: redirections to taps that went with it.
    public static func clear(_ namespace: NetworkNamespace) throws(SystemError) {
        let socket = try namespace.run { () throws(SystemError) in try RouteSocket() }
        let end = ContinuousClock.now + patience
        // A tap that is there belongs to a process that is about to end, or to another pod that has the namespace now.
        while try !clearOnce(socket), ContinuousClock.now < end { usleep(pause) }
    }

    /// True when every redirection of a pod's interface is gone.
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
