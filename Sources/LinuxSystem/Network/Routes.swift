import Glibc

/// A route of the main table.
public struct NetworkRoute: Sendable, Hashable, CustomStringConvertible {
    /// AF_INET or AF_INET6.
    public var family: UInt8
    /// nil: the default route.
    public var destination: IPPrefix?
    /// Of the route's family, or IPv6 for an IPv4 route.
    public var gateway: IPAddress?
    /// The interface's index; 0: none, or the interface that leads to the gateway.
    public var link: Int32 = 0
    public var preferredSource: IPAddress?
    /// RT_SCOPE_*; IPv4 only.
    public var scope: UInt8 = 0
    public var metric: UInt32 = 0
    /// RTN_*: 1 unicast, 6 blackhole, 7 unreachable, 8 prohibit.
    public var type: UInt8 = 1
    /// The gateway is on the link although no prefix covers it (RTNH_F_ONLINK).
    public var isOnlink = false
    /// Bytes; 0: the interface's.
    public var mtu: UInt32 = 0
    /// RTPROT_*: the origin of the route. 2 is the kernel, 9 a router advertisement.
    public var origin: UInt8 = 4
    /// The route has several next hops, which this type can't represent.
    public var isMultipath = false

    public init(family: UInt8, destination: IPPrefix? = nil) {
        self.family = family
        self.destination = destination
    }

    public var description: String {
        var words = [destination.map { "\($0)" } ?? (family == UInt8(AF_INET) ? "0.0.0.0/0" : "::/0")]
        if type != 1 { words.insert("type \(type)", at: 0) }
        if let gateway { words += ["via", "\(gateway)"] }
        if link != 0 { words += ["link", "\(link)"] }
        if let preferredSource { words += ["src", "\(preferredSource)"] }
        if metric != 0 { words += ["metric", "\(metric)"] }
        if isOnlink { words.append("onlink") }
        return words.joined(separator: " ")
    }

    /// Whether both are the same route apart from their origin.
    public func isSame(as other: NetworkRoute) -> Bool {
        var (a, b) = (self, other)
        a.origin = 0
        b.origin = 0
        return a == b
    }
}

/// Routes (rtnetlink(7), linux/rtnetlink.h).
extension RouteSocket {
    private enum Attribute {
        static let destination: UInt16 = 1, link: UInt16 = 4, gateway: UInt16 = 5, priority: UInt16 = 6
        static let source: UInt16 = 7, metrics: UInt16 = 8, multipath: UInt16 = 9, table: UInt16 = 15
        static let via: UInt16 = 18, metricMTU: UInt16 = 2
    }
    private static let new: UInt16 = 24, delete: UInt16 = 25, get: UInt16 = 26
    private static let headerSize = 12
    private static let mainTable: UInt32 = 254
    private static let onlink: UInt32 = 4, cloned: UInt32 = 0x200

    /// All routes of the main table.
    public func routes() throws(SystemError) -> [NetworkRoute] {
        var message = NetlinkMessage(Self.get, .dump)
        for _ in 0..<3 { message.put(UInt32(0)) }
        return try exchange(message, "list", "routes").compactMap(Self.route)
    }

    static func route(_ reply: NetlinkReply) -> NetworkRoute? {
        let (payload, attributes) = (reply.payload, reply.attributes(after: headerSize))
        let family = payload.number(0, UInt8.self)
        let flags = payload.number(8, UInt32.self)
        let table = attributes.number(Attribute.table) ?? UInt32(payload.number(4, UInt8.self))
        guard reply.type == new, table == mainTable, flags & cloned == 0,
            Int32(family) == AF_INET || Int32(family) == AF_INET6
        else { return nil }
        let destination = attributes.address(Attribute.destination)
        var route = NetworkRoute(
            family: family, destination: destination.map { IPPrefix($0, length: payload.number(1, UInt8.self)) })
        route.gateway =
            attributes.address(Attribute.gateway)
            ?? attributes.bytes(Attribute.via).flatMap { IPAddress($0.dropFirst(2)) }
        route.preferredSource = attributes.address(Attribute.source)
        route.origin = payload.number(5, UInt8.self)
        route.scope = payload.number(6, UInt8.self)
        route.type = payload.number(7, UInt8.self)
        route.metric = attributes.number(Attribute.priority) ?? 0
        route.isOnlink = flags & onlink != 0
        route.mtu = attributes.nested(Attribute.metrics)?.number(Attribute.metricMTU) ?? 0
        route.isMultipath = attributes.bytes(Attribute.multipath) != nil
        // An IPv6 route without a target names lo.
        route.link = route.type == 1 ? Int32(bitPattern: attributes.number(Attribute.link) ?? 0) : 0
        return route
    }

    /// Adds a route. Other routes to the same destination stay. Adding the same route again is an error (EEXIST).
    public func add(_ route: NetworkRoute) throws(SystemError) {
        try perform(try Self.message(Self.new, [.acknowledge, .create, .append], route), "add route", "\(route)")
    }

    /// Removes a route. It is not an error when it is already gone.
    public func remove(_ route: NetworkRoute) throws(SystemError) {
        do throws(SystemError) {
            try perform(try Self.message(Self.delete, .acknowledge, route), "remove route", "\(route)")
        } catch {
            if error.errno != .noSuchProcess { throw error }
        }
    }

    private static func message(
        _ type: UInt16, _ flags: NetlinkMessage.Flags, _ route: NetworkRoute
    ) throws(SystemError) -> NetlinkMessage {
        guard !route.isMultipath else {
            throw SystemError("route", "\(route): several next hops are not supported", errno: .notSupported)
        }
        var message = NetlinkMessage(type, flags)
        message.put(route.family)
        message.put(route.destination?.length ?? 0)
        message.put(UInt16(0))  // source, tos
        message.put(UInt8(mainTable))
        message.put(route.origin)
        message.put(route.scope)
        message.put(route.type)
        message.put(route.isOnlink ? onlink : 0)
        if let destination = route.destination { message.attribute(Attribute.destination, destination.address.bytes) }
        if let gateway = route.gateway {
            if gateway.family == route.family {
                message.attribute(Attribute.gateway, gateway.bytes)
            } else {
                message.attribute(Attribute.via, [gateway.family, 0] + gateway.bytes)
            }
        }
        if route.link != 0 { message.attribute(Attribute.link, route.link) }
        if let source = route.preferredSource { message.attribute(Attribute.source, source.bytes) }
        if route.metric != 0 { message.attribute(Attribute.priority, route.metric) }
        if route.mtu != 0 { message.nested(Attribute.metrics) { $0.attribute(Attribute.metricMTU, route.mtu) } }
        return message
    }
}
