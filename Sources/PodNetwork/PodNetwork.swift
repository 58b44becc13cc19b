public import LinuxSystem
import Synchronization

/// A network interface that the machine is to get: frames, with the header of virtio-net, at each of the queues.
public struct NetworkConnection: Sendable {
    /// The interface's index in the pod's network namespace.
    let link: Int32
    /// The interface's name in the pod's network namespace.
    public var name: String
    /// 6 bytes.
    public var hardwareAddress: [UInt8]
    /// Bytes.
    public var mtu: UInt32
    /// The tap's descriptors, one for each pair of queues.
    public var queues: [SharedDescriptor]
}

/// A pod's network: its namespace, and a tap for each interface in it. All that it made there ends with it.
public final class PodNetwork: Sendable {
    /// Interfaces that CNI plugins and engines make.
    static let kinds: Set<String> = ["veth", "macvlan", "ipvlan", "tun"]

    public let namespace: NetworkNamespace
    private let socket: RouteSocket
    private let queues: Int
    private let attachments = Mutex<[Attachment]>([])

    /// - Parameters:
    ///   - path: the network namespace that an engine made; nil: a new one, whose `lo` is up.
    ///   - queues: pairs of queues of each interface.
    public init(path: String?, queues: Int = 1) throws(SystemError) {
        namespace = if let path { try NetworkNamespace(path: path) } else { try NetworkNamespace.make() }
        self.queues = queues
        socket = try namespace.run { () throws(SystemError) in try RouteSocket() }
        if path == nil, let loopback = try socket.links().first(where: \.isLoopback) {
            try socket.setLink(loopback.index, up: true)
        }
    }

    /// Lets go of the interfaces that are gone, and answers their hardware addresses.
    public func release() throws(SystemError) -> [[UInt8]] {
        let present = Set(try socket.links().map(\.index))
        return attachments.withLock { attachments in
            let gone = attachments.filter { !present.contains($0.link.index) }
            attachments.removeAll { !present.contains($0.link.index) }
            return gone.map(\.link.hardwareAddress)
        }
    }

    /// Connects each interface that is not connected yet, and answers these.
    public func connect() throws(SystemError) -> [NetworkConnection] {
        let result: Result<[NetworkConnection], SystemError> = attachments.withLock { attachments in
            do throws(SystemError) { return .success(try connect(&attachments)) } catch { return .failure(error) }
        }
        return try result.get()
    }

    private func connect(_ attachments: inout [Attachment]) throws(SystemError) -> [NetworkConnection] {
        let links = try podLinks(attachments)
        var made: [NetworkConnection] = []
        for link in links {
            if let known = attachments.first(where: { $0.link.index == link.index }) {
                try known.follow(mtu: link.mtu)
                continue
            }
            let attachment = try Attachment(link, namespace, socket, queues: queues)
            attachments.append(attachment)
            made.append(
                NetworkConnection(
                    link: link.index, name: link.name, hardwareAddress: link.hardwareAddress, mtu: link.mtu,
                    queues: attachment.tap.queues))
        }
        return made
    }

    /// Lets go of an interface that the machine did not get: the next `connect` tries again.
    public func drop(_ connection: NetworkConnection) {
        attachments.withLock { $0.removeAll { $0.link.index == connection.link } }
    }

    /// What the guest's network must be now: of the interfaces that are connected.
    public func plan() throws(SystemError) -> NetworkPlan {
        let attachments = attachments.withLock { $0 }
        let links = try podLinks(attachments)
        return try NetworkPlan(socket, links.filter { link in attachments.contains { $0.link.index == link.index } })
    }

    /// The interfaces that the guest is to have, without the taps made here.
    private func podLinks(_ attachments: [Attachment]) throws(SystemError) -> [NetworkLink] {
        try socket.links().filter { link in
            link.isEthernet && Self.kinds.contains(link.kind) && !attachments.contains { $0.tapLink == link.index }
        }
    }

    /// Takes the taps and redirections away. The namespace stays for as long as somebody refers to it.
    public func disconnect() { attachments.withLock { $0 = [] } }
}
