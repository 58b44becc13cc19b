import Glibc

/// A network interface as the kernel lists it.
public struct NetworkLink: Sendable, Equatable {
    public var index: Int32
    public var name: String
    /// `veth`, `macvlan`, `tun` and so on; empty for a hardware device.
    public var kind: String
    /// ARPHRD_*: 1 is Ethernet.
    public var hardwareType: UInt16
    public var hardwareAddress: [UInt8]
    /// Bytes.
    public var mtu: UInt32
    /// IFF_*.
    public var flags: UInt32

    public var isUp: Bool { flags & 1 != 0 }
    public var isLoopback: Bool { flags & 8 != 0 }
    /// IFF_NOARP.
    public var hasNoARP: Bool { flags & 0x80 != 0 }
    public var isEthernet: Bool { hardwareType == 1 && !isLoopback && hardwareAddress.count == 6 }
}

/// Links (rtnetlink(7), linux/if_link.h).
extension RouteSocket {
    private enum Message {
        static let new: UInt16 = 16, delete: UInt16 = 17, get: UInt16 = 18
    }
    private enum Attribute {
        static let address: UInt16 = 1, name: UInt16 = 3, mtu: UInt16 = 4, link: UInt16 = 5, master: UInt16 = 10
        static let information: UInt16 = 18, kind: UInt16 = 1, data: UInt16 = 2, namespace: UInt16 = 28
    }
    private static let headerSize = 16

    private static func message(
        _ type: UInt16, _ flags: NetlinkMessage.Flags, index: Int32 = 0, set: UInt32 = 0, change: UInt32 = 0
    ) -> NetlinkMessage {
        var message = NetlinkMessage(type, flags)
        message.put(UInt16(0))  // family, padding
        message.put(UInt16(0))  // hardware type
        message.put(index)
        message.put(set)
        message.put(change)
        return message
    }

    /// All links of the namespace, by index.
    public func links() throws(SystemError) -> [NetworkLink] {
        try exchange(Self.message(Message.get, .dump), "list", "links")
            .filter { $0.type == Message.new }.map(Self.link).sorted { $0.index < $1.index }
    }

    /// The link with the name; nil when there is none.
    public func link(named name: String) throws(SystemError) -> NetworkLink? {
        try links().first { $0.name == name }
    }

    static func link(_ reply: NetlinkReply) -> NetworkLink {
        let attributes = reply.attributes(after: headerSize)
        return NetworkLink(
            index: reply.payload.number(4, Int32.self), name: attributes.text(Attribute.name) ?? "",
            kind: attributes.nested(Attribute.information)?.text(Attribute.kind) ?? "",
            hardwareType: reply.payload.number(2, UInt16.self),
            hardwareAddress: attributes.bytes(Attribute.address) ?? [],
            mtu: attributes.number(Attribute.mtu) ?? 0, flags: reply.payload.number(8, UInt32.self))
    }

    /// Sets a link up or down.
    public func setLink(_ index: Int32, up: Bool) throws(SystemError) {
        try perform(
            Self.message(Message.new, .acknowledge, index: index, set: up ? 1 : 0, change: 1),
            up ? "set up" : "set down", "link \(index)")
    }

    /// Switches ARP off or on (IFF_NOARP).
    public func setLink(_ index: Int32, noARP: Bool) throws(SystemError) {
        try perform(
            Self.message(Message.new, .acknowledge, index: index, set: noARP ? 0x80 : 0, change: 0x80),
            "set noarp \(noARP)", "link \(index)")
    }

    /// Sets a link's MTU, bytes.
    public func setLink(_ index: Int32, mtu: UInt32) throws(SystemError) {
        var message = Self.message(Message.new, .acknowledge, index: index)
        message.attribute(Attribute.mtu, mtu)
        try perform(message, "set mtu \(mtu)", "link \(index)")
    }

    /// Renames a link. A link that is up can't always be renamed.
    public func setLink(_ index: Int32, name: String) throws(SystemError) {
        var message = Self.message(Message.new, .acknowledge, index: index)
        message.attribute(Attribute.name, text: name)
        try perform(message, "rename to \(name)", "link \(index)")
    }

    /// Sets a link's hardware address.
    public func setLink(_ index: Int32, hardwareAddress: [UInt8]) throws(SystemError) {
        var message = Self.message(Message.new, .acknowledge, index: index)
        message.attribute(Attribute.address, hardwareAddress)
        try perform(message, "set address \(hardwareAddressText(hardwareAddress))", "link \(index)")
    }

    /// Removes a virtual link. It is not an error when it is already gone.
    public func removeLink(_ index: Int32) throws(SystemError) {
        do throws(SystemError) {
            try perform(Self.message(Message.delete, .acknowledge, index: index), "remove", "link \(index)")
        } catch {
            if error.errno != .noSuchDevice { throw error }
        }
    }

    /// Moves a link to another network namespace.
    public func setLink(_ index: Int32, namespace: NetworkNamespace) throws(SystemError) {
        var message = Self.message(Message.new, .acknowledge, index: index)
        message.attribute(Attribute.namespace, namespace.descriptor.raw)
        try perform(message, "move to another namespace", "link \(index)")
    }

    /// Creates a pair of connected veth links.
    public func makeVeth(_ name: String, peer: String) throws(SystemError) {
        try make(name, kind: "veth") { data in
            data.nested(1) { peerPart in  // VETH_INFO_PEER
                for _ in 0..<4 { peerPart.put(UInt32(0)) }
                peerPart.attribute(Attribute.name, text: peer)
            }
        }
    }

    /// Creates a macvlan link on `parent`, in bridge mode.
    public func makeMacvlan(_ name: String, on parent: Int32) throws(SystemError) {
        try make(name, kind: "macvlan", parent: parent) { $0.attribute(1, UInt32(4)) }  // IFLA_MACVLAN_MODE
    }

    private func make(
        _ name: String, kind: String, parent: Int32? = nil, _ data: (inout NetlinkMessage) -> Void
    ) throws(SystemError) {
        var message = Self.message(Message.new, [.acknowledge, .create, .exclusive])
        message.attribute(Attribute.name, text: name)
        if let parent { message.attribute(Attribute.link, parent) }
        message.nested(Attribute.information) { information in
            information.attribute(Attribute.kind, text: kind)
            information.nested(Attribute.data, data)
        }
        try perform(message, "make \(kind)", name)
    }
}
