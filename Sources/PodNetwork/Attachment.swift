import LinuxSystem

/// An interface of the pod's network namespace, connected to a tap: all frames of one are redirected to the other.
///
/// The host's protocols in the namespace neither receive nor send on the interface. The guest uses its addresses.
final class Attachment: Sendable {
    let link: NetworkLink
    let tap: Tap
    let tapLink: Int32
    private let socket: RouteSocket

    /// The prefix of all names of taps.
    static let tapPrefix = "martlet"
    /// The name of the tap of an interface.
    static func tapName(_ link: Int32) -> String { "\(tapPrefix)\(link)" }

    /// - Parameter queues: the number of queue pairs of the tap.
    init(_ link: NetworkLink, _ namespace: NetworkNamespace, _ socket: RouteSocket, queues: Int) throws(SystemError) {
        let name = Self.tapName(link.index)
        let tap = try namespace.run { () throws(SystemError) in try Tap(name, queues: queues) }
        guard let tapLink = try socket.link(named: name) else {
            throw SystemError("find tap", name, errno: .init(rawValue: 19))
        }
        do throws(SystemError) {
            // The tap must accept every frame that the interface accepts.
            if tapLink.mtu != link.mtu { try socket.setLink(tapLink.index, mtu: link.mtu) }
            try socket.setLink(tapLink.index, up: true)
            try socket.redirect(link.index, to: tapLink.index)
            try socket.redirect(tapLink.index, to: link.index)
        } catch {
            try? socket.removeIngress(link.index)
            try? socket.removeLink(tapLink.index)
            throw error
        }
        self.link = link
        self.tap = tap
        self.socket = socket
        self.tapLink = tapLink.index
    }

    /// Sets the tap's MTU to the interface's, bytes.
    func update(mtu: UInt32) throws(SystemError) { try socket.setLink(tapLink, mtu: mtu) }

    // Removes the tap even if other processes still have its descriptors. What can't be removed goes with the namespace.
    deinit {
        try? socket.removeIngress(link.index)
        try? socket.removeLink(tapLink)
    }
}
