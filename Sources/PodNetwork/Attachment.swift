import LinuxSystem
import Synchronization

/// An interface of the pod's network namespace, connected to a tap: the frames of one are redirected to the other.
///
/// The host's protocols in the namespace neither receive nor send on the interface. The guest uses its addresses.
final class Attachment: Sendable {
    let link: NetworkLink
    let tap: Tap
    let tapLink: Int32
    private let socket: RouteSocket
    private let filter: Mutex<PacketFilter?>

    /// The prefix of all names of taps.
    static let tapPrefix = "martlet"
    /// The name of the tap of an interface.
    static func tapName(_ link: Int32) -> String { "\(tapPrefix)\(link)" }

    /// - Parameters:
    ///   - queues: the number of queue pairs of the tap.
    ///   - filter: which of the guest's frames pass; nil: all.
    init(
        _ link: NetworkLink, _ namespace: NetworkNamespace, _ socket: RouteSocket, queues: Int, filter: PacketFilter?
    ) throws(SystemError) {
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
            try socket.redirect(tapLink.index, to: link.index, filter: filter)
        } catch {
            try? socket.removeIngress(link.index)
            try? socket.removeLink(tapLink.index)
            throw error
        }
        self.link = link
        self.tap = tap
        self.socket = socket
        self.tapLink = tapLink.index
        self.filter = Mutex(filter)
    }

    /// Follows a change.
    ///
    /// - Parameters:
    ///   - mtu: the interface's, bytes; the tap gets the same.
    ///   - filter: which of the guest's frames pass from now on; nil: as before.
    func update(mtu: UInt32, filter: PacketFilter?) throws(SystemError) {
        try socket.setLink(tapLink, mtu: mtu)
        guard let filter, filter != self.filter.withLock({ $0 }) else { return }
        try socket.setFilter(filter, ofRedirectFrom: tapLink, to: link.index)
        self.filter.withLock { $0 = filter }
    }

    // Removes the tap even if other processes still have its descriptors. What can't be removed goes with the namespace.
    deinit {
        try? socket.removeIngress(link.index)
        try? socket.removeLink(tapLink)
    }
}
