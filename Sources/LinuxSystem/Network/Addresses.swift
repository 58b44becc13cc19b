import Glibc

/// An address of a network interface.
public struct LinkAddress: Sendable, Hashable {
    /// The interface's index.
    public var link: Int32
    public var prefix: IPPrefix
    /// Of IPv4, where it is set.
    public var broadcast: IPAddress?
    /// RT_SCOPE_*: 0 is the whole world, 253 the link, 254 the host.
    public var scope: UInt8
    /// IFA_F_*.
    public var flags: UInt32 = 0

    public init(link: Int32, prefix: IPPrefix, broadcast: IPAddress? = nil, scope: UInt8 = 0) {
        self.link = link
        self.prefix = prefix
        self.broadcast = broadcast
        self.scope = scope
    }

    /// Another node had it already (IFA_F_DADFAILED).
    public var isDuplicate: Bool { flags & 0x08 != 0 }
    /// It was not made from a router's word for a while only (IFA_F_PERMANENT).
    public var isPermanent: Bool { flags & 0x80 != 0 }
}

/// Addresses (rtnetlink(7), linux/if_addr.h).
extension RouteSocket {
    private enum Attribute {
        static let address: UInt16 = 1, local: UInt16 = 2, broadcast: UInt16 = 4, flags: UInt16 = 8
    }
    private static let new: UInt16 = 20, delete: UInt16 = 21, get: UInt16 = 22
    private static let headerSize = 8
    /// IFA_F_NODAD: it is there at once. IFA_F_NOPREFIXROUTE: no route comes with it.
    private static let noDetection: UInt32 = 0x02, noRoute: UInt32 = 0x200

    /// All addresses of the namespace.
    public func addresses() throws(SystemError) -> [LinkAddress] {
        var message = NetlinkMessage(Self.get, .dump)
        for _ in 0..<2 { message.put(UInt32(0)) }
        return try exchange(message, "list", "addresses").filter { $0.type == Self.new }.compactMap { reply in
            let attributes = reply.attributes(after: Self.headerSize)
            guard let address = attributes.address(Attribute.local) ?? attributes.address(Attribute.address) else {
                return nil
            }
            var result = LinkAddress(
                link: reply.payload.number(4, Int32.self),
                prefix: IPPrefix(address, length: reply.payload.number(1, UInt8.self)),
                broadcast: attributes.address(Attribute.broadcast), scope: reply.payload.number(3, UInt8.self))
            result.flags = attributes.number(Attribute.flags) ?? UInt32(reply.payload.number(2, UInt8.self))
            return result
        }
    }

    /// Gives a link an address, or changes it. The address is used at once, without asking the link whether another node
    /// has it.
    ///
    /// - Parameter route: whether the kernel makes the route to the address's network by itself.
    public func add(_ address: LinkAddress, route: Bool = true) throws(SystemError) {
        var message = Self.message(Self.new, [.acknowledge, .create, .replace], address)
        if let broadcast = address.broadcast { message.attribute(Attribute.broadcast, broadcast.bytes) }
        message.attribute(Attribute.flags, Self.noDetection | (route ? 0 : Self.noRoute))
        try perform(message, "add address \(address.prefix)", "link \(address.link)")
    }

    /// Takes an address away. One that is gone already is no error.
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
