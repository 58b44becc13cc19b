import LinuxSystem

/// An interface of the pod's network namespace, and the tap that all its frames go to and come from.
///
/// The namespace's own protocols hear and say nothing on it any more: the guest does, with the same addresses.
final class Attachment: Sendable {
    let link: NetworkLink
    let tap: Tap
    let tapLink: Int32
    private let socket: RouteSocket

    /// What the name of each tap begins with.
    static let tapPrefix = "martlet"
    /// The name of the tap of an interface.
    static func tapName(_ link: Int32) -> String { "\(tapPrefix)\(link)" }

    /// - Parameter queues: pairs of queues of the tap.
    init(_ link: NetworkLink, _ namespace: NetworkNamespace, _ socket: RouteSocket, queues: Int) throws(SystemError) {
        let name = Self.tapName(link.index)
        let tap = try namespace.run { () throws(SystemError) in try Tap(name, queues: queues) }
        guard let made = try socket.link(named: name) else {
            throw SystemError("find tap", name, errno: .init(rawValue: 19))
        }
        do throws(SystemError) {
            // A frame that fits the interface must fit the tap.
            if made.mtu != link.mtu { try socket.setLink(made.index, mtu: link.mtu) }
            try socket.setLink(made.index, up: true)
            try socket.redirect(link.index, to: made.index)
            try socket.redirect(made.index, to: link.index)
        } catch {
            try? socket.removeIngress(link.index)
            try? socket.removeLink(made.index)
            throw error
        }
        self.link = link
        self.tap = tap
        self.socket = socket
        tapLink = made.index
    }

    /// Follows a change of the interface's MTU, bytes.
    func follow(mtu: UInt32) throws(SystemError) { try socket.setLink(tapLink, mtu: mtu) }

    // The tap goes too, although others hold its descriptors still. What can't be removed is gone with its namespace.
    deinit {
        try? socket.removeIngress(link.index)
        try? socket.removeLink(tapLink)
    }
}
