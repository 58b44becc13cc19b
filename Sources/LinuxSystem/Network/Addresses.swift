import Glibc

/// An address of a network interface.
public struct LinkAddress: Sendable, Hashable {
    /// The interface's index.
    public var link: Int32
    public var prefix: IPPrefix
    /// IPv4 only, if it is set.
    public var broadcast: IPAddress?
    /// RT_SCOPE_*: 0 is universe, 253 link, 254 host.
    public var scope: UInt8
    /// IFA_F_*.
    public var flags: UInt32 = 0

    public init(link: Int32, prefix: IPPrefix, broadcast: IPAddress? = nil, scope: UInt8 = 0) {
        self.link = link
        self.prefix = prefix
        self.broadcast = broadcast
        self.scope = scope
    }

    /// Duplicate address detection found another node with the address (IFA_F_DADFAILED).
    public var isDuplicate: Bool { flags & 0x08 != 0 }
    /// The address does not expire, as one from a router advertisement does (IFA_F_PERMANENT).
    public var isPermanent: Bool { flags & 0x80 != 0 }
}

/// Addresses (rtnetlink(7), linux/if_addr.h).
extension RouteSocket {
    private enum Attribute {
        static let address: UInt16 = 1, local: UInt16 = 2, broadcast: UInt16 = 4, flags: UInt16 = 8
    }
    private static let new: UInt16 = 20, delete: UInt16 = 21, get: UInt16 = 22
    private static let headerSize = 8
    /// IFA_F_NODAD: the address can be used at once. IFA_F_NOPREFIXROUTE: the kernel adds no route.
    private static let noDetection: UInt32 = 0x02, noRoute: UInt32 = 0x200

    /// All addresses of the namespace.
    public func addresses() throws(SystemError) -> [LinkAddress] {
        var message = NetlinkMessage(Self.get, .dump)
        for _ in 0..<2 { message.put(UInt32(0)) }
        return try exchange(message, "list", "addresses").compactMap(Self.address)
    }

    static func address(_ reply: NetlinkReply) -> LinkAddress? {
        let attributes = reply.attributes(after: headerSize)
        guard reply.type == new,
            let address = attributes.address(Attribute.local) ?? attributes.address(Attribute.address)
        else { return nil }
        var result = LinkAddress(
            link: reply.payload.number(4, Int32.self),
            prefix: IPPrefix(address, length: reply.payload.number(1, UInt8.self)),
            broadcast: attributes.address(Attribute.broadcast), scope: reply.payload.number(3, UInt8.self))
        result.flags = attributes.number(Attribute.flags) ?? UInt32(reply.payload.number(2, UInt8.self))
        return result
    }

    /// Adds an address to a link, or changes it. The address can be used at once: there is no duplicate address detection.
    ///
    /// - Parameter route: whether the kernel adds the route to the address's network.
    public func add(_ address: LinkAddress, route: Bool = true) throws(SystemError) {
        var message = Self.message(Self.new, [.acknowledge, .create, .replace], address)
        if let broadcast = address.broadcast { message.attribute(Attribute.broadcast, broadcast.bytes) }
        message.attribute(Attribute.flags, Self.noDetection | (route ? 0 : Self.noRoute))
        try perform(message, "add address \(address.prefix)", "link \(address.link)")
    }

    /// Removes an address. It is not an error when it is already gone.
    public func remove(_ address: LinkAddress) throws(SystemError) {
        do throws(SystemError) {
            try perform(
                Self.message(Self.delete, .acknowledge, address), "remove address \(address.prefix)",
                "link \(address.link)")
        } catch {
            if error.errno != .addressNotAvailable { throw error }
        }
    }

    private static func message(
        _ type: UInt16, _ flags: NetlinkMessage.Flags, _ address: LinkAddress
    ) -> NetlinkMessage {
        var message = NetlinkMessage(type, flags)
        message.put(address.prefix.address.family)
        message.put(address.prefix.length)
        message.put(UInt8(0))
        message.put(address.scope)
        message.put(address.link)
        message.attribute(Attribute.local, address.prefix.address.bytes)
        message.attribute(Attribute.address, address.prefix.address.bytes)
        return message
    }
}
