public import LinuxSystem

/// The network that the guest must have: what is in the pod's network namespace. It uses names of interfaces instead of
/// indices, because the guest has other indices.
public struct NetworkPlan: Sendable, Equatable {
    public struct Interface: Sendable, Equatable {
        public var name: String
        /// 6 bytes. The guest finds the interface by them.
        public var hardwareAddress: [UInt8]
        /// Bytes.
        public var mtu: UInt32
        public var addresses: [Address]
        public var isUp: Bool
        public var hasNoARP: Bool
    }

    public struct Address: Sendable, Equatable {
        public var prefix: IPPrefix
        public var broadcast: IPAddress?
        /// RT_SCOPE_*.
        public var scope: UInt8
    }

    /// A `NetworkRoute` whose `link` is 0.
    public struct Route: Sendable, Equatable {
        public var route: NetworkRoute
        /// The interface's name; empty when there is none.
        public var device: String
    }

    public struct Neighbour: Sendable, Equatable {
        public var address: IPAddress
        public var hardwareAddress: [UInt8]
        public var device: String
    }

    public var interfaces: [Interface] = []
    public var routes: [Route] = []
    public var neighbours: [Neighbour] = []
    /// What the guest does not get, one line each.
    public var warnings: [String] = []

    public init() {}
}

extension NetworkPlan {
    /// RTPROT_RA: the guest receives router advertisements itself.
    private static let fromRouter: UInt8 = 9

    /// Reads the configuration of `links`, in their order.
    ///
    /// Routes that the kernel has added for an address are read too, because CNI plugins remove some of them and these must not
    /// come back in the guest.
    init(_ socket: RouteSocket, _ links: [NetworkLink]) throws(SystemError) {
        let names = Dictionary(links.map { ($0.index, $0.name) }, uniquingKeysWith: { first, _ in first })
        let addresses = try socket.addresses()
        interfaces = links.map { link in
            Interface(
                name: link.name, hardwareAddress: link.hardwareAddress, mtu: link.mtu,
                addresses: addresses.filter { $0.link == link.index && $0.isOfGuest }
                    .map { Address(prefix: $0.prefix, broadcast: $0.broadcast, scope: $0.scope) },
                isUp: link.isUp, hasNoARP: link.hasNoARP)
        }
        for route in try socket.routes() where route.origin != Self.fromRouter {
            if route.isMultipath {
                warnings.append("route \(route): several next hops are not supported")
                continue
            }
            guard route.link == 0 || names[route.link] != nil else { continue }
            var own = route
            own.link = 0
            own.origin = 4  // RTPROT_STATIC
            routes.append(Route(route: own, device: names[route.link] ?? ""))
        }
        neighbours = try socket.neighbours().compactMap { neighbour in
            names[neighbour.link].map {
                Neighbour(address: neighbour.address, hardwareAddress: neighbour.hardwareAddress, device: $0)
            }
        }
    }
}

extension LinkAddress {
    /// Whether the guest gets the address.
    var isOfGuest: Bool { isPermanent && !isDuplicate }
}
