public import LinuxSystem
import Synchronization

/// A network interface for the machine. Its queues carry frames with the virtio-net header.
public struct NetworkConnection: Sendable {
    /// The interface's index in the pod's network namespace.
    let link: Int32
    /// The interface's name in the pod's network namespace.
    public var name: String
    /// 6 bytes.
    public var hardwareAddress: [UInt8]
    /// Bytes.
    public var mtu: UInt32
    /// The tap's descriptors, one for each queue pair.
    public var queues: [SharedDescriptor]
}

/// A pod's network: its namespace, and a tap for each interface in it. When the value is released, the taps and redirections are
/// removed.
public final class PodNetwork: Sendable {
    /// The kinds of interfaces that CNI plugins and engines create.
    static let kinds: Set<String> = ["veth", "macvlan", "ipvlan", "tun"]

    public let namespace: NetworkNamespace
    private let socket: RouteSocket
    private let queues: Int
    private let filtersSources: Bool
    private let attachments = Mutex<[Attachment]>([])

    /// - Parameters:
    ///   - path: the network namespace that an engine has created; nil: a new one, whose `lo` is up.
    ///   - queues: the number of queue pairs of each interface.
    ///   - filtersSources: whether the guest's frames pass only from the pod's own addresses; see `SourceFilter`.
    public init(path: String?, queues: Int = 1, filtersSources: Bool = false) throws(SystemError) {
        namespace = if let path { try NetworkNamespace(path: path) } else { try NetworkNamespace.make() }
        self.queues = queues
        self.filtersSources = filtersSources
        socket = try namespace.run { () throws(SystemError) in try RouteSocket() }
        if path == nil, let loopback = try socket.links().first(where: \.isLoopback) {
            try socket.setLink(loopback.index, up: true)
        }
    }

    /// Releases the interfaces that are gone from the namespace.
    ///
    /// - Returns: their hardware addresses.
    public func release() throws(SystemError) -> [[UInt8]] {
        let present = Set(try socket.links().map(\.index))
        return attachments.withLock { attachments in
            let gone = attachments.filter { !present.contains($0.link.index) }
            attachments.removeAll { !present.contains($0.link.index) }
            return gone.map(\.link.hardwareAddress)
        }
    }

    /// Connects each interface that is not connected yet to a tap, and follows changes of those that are.
    ///
    /// - Returns: the new connections.
    public func connect() throws(SystemError) -> [NetworkConnection] {
        let result: Result<[NetworkConnection], SystemError> = attachments.withLock { attachments in
            do throws(SystemError) { return .success(try connect(&attachments)) } catch { return .failure(error) }
        }
        return try result.get()
    }

    private func connect(_ attachments: inout [Attachment]) throws(SystemError) -> [NetworkConnection] {
        let links = try podLinks(attachments)
        let addresses = filtersSources ? try self.addresses(of: links) : []
        var made: [NetworkConnection] = []
        for link in links {
            let known = attachments.first { $0.link.index == link.index }
            // The guest keeps the hardware address that it was given.
            let hardwareAddress = (known?.link ?? link).hardwareAddress
            let filter =
                filtersSources ? SourceFilter.program(hardwareAddress: hardwareAddress, addresses: addresses) : nil
            if let known {
                try known.update(mtu: link.mtu, filter: filter)
                continue
            }
            let attachment = try Attachment(link, namespace, socket, queues: queues, filter: filter)
            attachments.append(attachment)
            made.append(
                NetworkConnection(
                    link: link.index, name: link.name, hardwareAddress: link.hardwareAddress, mtu: link.mtu,
                    queues: attachment.tap.queues))
        }
        return made
    }

    /// The addresses of the pod's interfaces, in a fixed order.
    private func addresses(of links: [NetworkLink]) throws(SystemError) -> [IPAddress] {
        let indices = Set(links.map(\.index))
        let addresses = try socket.addresses().filter { indices.contains($0.link) && $0.isOfGuest }
        return Set(addresses.map(\.prefix.address)).sorted { $0.description < $1.description }
    }

    /// The connected interfaces, in the order in which they were connected.
    public var connected: [(hardwareAddress: [UInt8], queues: Int)] {
        attachments.withLock { $0.map { ($0.link.hardwareAddress, $0.tap.queues.count) } }
    }

    /// What went between host and guest so far, by the names of the interfaces. The host receives what the guest sends.
    public func statistics() throws(SystemError) -> [(interface: String, counts: LinkStatistics)] {
        let taps = attachments.withLock { $0.map { ($0.link.name, $0.tapLink) } }
        if taps.isEmpty { return [] }
        let counts = try socket.statistics()
        return taps.compactMap { name, tap in counts[tap].map { (name, $0) } }
    }

    /// Makes a tap that leads nowhere, for an interface that a restored machine has and its pod has not.
    ///
    /// - Parameter queues: how many pairs.
    public static func makePlaceholder(queues: Int) throws(SystemError) -> [SharedDescriptor] {
        try NetworkNamespace.make().run { () throws(SystemError) in
            try Tap("\(Attachment.tapPrefix)0", queues: queues).queues
        }
    }

    /// Releases an interface that could not be added to the machine. The next `connect` tries again.
    public func drop(_ connection: NetworkConnection) {
        attachments.withLock { $0.removeAll { $0.link.index == connection.link } }
    }

    /// The network that the guest must have now: the connected interfaces, and what belongs to them.
    public func plan() throws(SystemError) -> NetworkPlan {
        let attachments = attachments.withLock { $0 }
        let links = try podLinks(attachments)
        return try NetworkPlan(socket, links.filter { link in attachments.contains { $0.link.index == link.index } })
    }

    /// The interfaces for the guest, without the taps.
    private func podLinks(_ attachments: [Attachment]) throws(SystemError) -> [NetworkLink] {
        try socket.links().filter { link in
            link.isEthernet && Self.kinds.contains(link.kind) && !attachments.contains { $0.tapLink == link.index }
        }
    }

    /// Removes the taps and redirections. The namespace stays as long as something refers to it.
    public func disconnect() { attachments.withLock { $0 = [] } }
}
