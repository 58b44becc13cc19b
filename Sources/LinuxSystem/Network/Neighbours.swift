import Glibc

/// A permanent neighbour entry: an address and its hardware address.
public struct NetworkNeighbour: Sendable, Hashable {
    /// The interface's index.
    public var link: Int32
    public var address: IPAddress
    public var hardwareAddress: [UInt8]

    public init(link: Int32, address: IPAddress, hardwareAddress: [UInt8]) {
        self.link = link
        self.address = address
        self.hardwareAddress = hardwareAddress
    }
}

/// Permanent neighbours (rtnetlink(7), linux/neighbour.h). Each kernel learns the others by itself.
extension RouteSocket {
    private enum Attribute {
        static let destination: UInt16 = 1, hardwareAddress: UInt16 = 2
    }
    private static let new: UInt16 = 28, delete: UInt16 = 29, get: UInt16 = 30
    private static let headerSize = 12
    private static let permanent: UInt16 = 0x80

    /// All permanent neighbours of the namespace.
    public func neighbours() throws(SystemError) -> [NetworkNeighbour] {
        var message = NetlinkMessage(Self.get, .dump)
        for _ in 0..<3 { message.put(UInt32(0)) }
        return try exchange(message, "list", "neighbours").compactMap(Self.neighbour)
    }

    static func neighbour(_ reply: NetlinkReply) -> NetworkNeighbour? {
        let attributes = reply.attributes(after: headerSize)
        guard reply.type == new, reply.payload.number(8, UInt16.self) & permanent != 0,
            let address = attributes.address(Attribute.destination),
            let hardware = attributes.bytes(Attribute.hardwareAddress)
        else { return nil }
        return NetworkNeighbour(
            link: reply.payload.number(4, Int32.self), address: address, hardwareAddress: hardware)
    }

    /// Adds a permanent neighbour.
    public func add(_ neighbour: NetworkNeighbour) throws(SystemError) {
        try perform(
            Self.message(Self.new, [.acknowledge, .create, .replace], neighbour),
            "add neighbour \(neighbour.address)", "link \(neighbour.link)")
    }

    /// Removes a neighbour. It is not an error when it is already gone.
    public func remove(_ neighbour: NetworkNeighbour) throws(SystemError) {
        do throws(SystemError) {
            try perform(
                Self.message(Self.delete, .acknowledge, neighbour), "remove neighbour \(neighbour.address)",
                "link \(neighbour.link)")
        } catch {
            if error.errno != .noSuchFileOrDirectory { throw error }
        }
    }

    private static func message(
        _ type: UInt16, _ flags: NetlinkMessage.Flags, _ neighbour: NetworkNeighbour
    ) -> NetlinkMessage {
        var message = NetlinkMessage(type, flags)
        message.put(UInt32(neighbour.address.family))
        message.put(neighbour.link)
        message.put(permanent)
        message.put(UInt16(0))
        message.attribute(Attribute.destination, neighbour.address.bytes)
        message.attribute(Attribute.hardwareAddress, neighbour.hardwareAddress)
        return message
    }
}
