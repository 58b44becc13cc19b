import AgentAPI
import GuestSystem
import LinuxSystem

/// What the guest's network must be: `UpdateNetwork`'s request, checked.
struct NetworkRequest: Sendable {
    struct Interface: Sendable {
        var name: String
        var hardwareAddress: [UInt8]
        var mtu: UInt32
        var addresses: [LinkAddress]
        var isUp: Bool
        var hasNoARP: Bool
    }

    struct Route: Sendable {
        var route: NetworkRoute
        var device: String
    }

    struct Neighbour: Sendable {
        var address: IPAddress
        var hardwareAddress: [UInt8]
        var device: String
    }

    var interfaces: [Interface]
    var routes: [Route]
    var neighbours: [Neighbour]

    init(_ request: AgentUpdateNetworkRequest) throws(AgentFailure) {
        interfaces = []
        for interface in request.interfaces { interfaces.append(try Self.interface(interface)) }
        guard Set(interfaces.map(\.name)).count == interfaces.count,
            Set(interfaces.map(\.hardwareAddress)).count == interfaces.count
        else { throw AgentFailure(.invalidArgument, "two interfaces have one name or one hardware address") }
        routes = []
        for route in request.routes { routes.append(try Self.route(route)) }
        neighbours = []
        for neighbour in request.neighbours {
            neighbours.append(
                Neighbour(
                    address: try Self.address(neighbour.address, "neighbour"),
                    hardwareAddress: Array(neighbour.hardwareAddress), device: neighbour.device))
        }
    }

    private static func interface(_ interface: AgentInterface) throws(AgentFailure) -> Interface {
        // IFNAMSIZ with its NUL.
        guard (1...15).contains(interface.name.utf8.count), interface.hardwareAddress.count == 6 else {
            throw AgentFailure(.invalidArgument, "interface \(interface.name): its name or hardware address can't be")
        }
        var addresses: [LinkAddress] = []
        for address in interface.addresses {
            let bytes = try Self.address(address.address, "interface \(interface.name)")
            var result = LinkAddress(link: 0, prefix: IPPrefix(bytes, length: UInt8(clamping: address.prefixLength)))
            result.scope = UInt8(clamping: address.scope)
            if !address.broadcast.isEmpty {
                result.broadcast = try Self.address(address.broadcast, "broadcast of interface \(interface.name)")
            }
            addresses.append(result)
        }
        return Interface(
            name: interface.name, hardwareAddress: Array(interface.hardwareAddress), mtu: interface.mtu,
            addresses: addresses, isUp: interface.up, hasNoARP: interface.noArp)
    }

    private static func route(_ route: AgentRoute) throws(AgentFailure) -> Route {
        let destination = route.destination.isEmpty ? nil : try address(route.destination, "route's destination")
        let gateway = route.gateway.isEmpty ? nil : try address(route.gateway, "route's gateway")
        let family = destination?.family ?? (route.family > 0 ? UInt8(clamping: route.family) : gateway?.family ?? 2)
        var result = NetworkRoute(
            family: family, destination: destination.map { IPPrefix($0, length: UInt8(clamping: route.prefixLength)) })
        result.gateway = gateway
        if !route.preferredSource.isEmpty {
            result.preferredSource = try address(route.preferredSource, "route's source")
        }
        result.scope = UInt8(clamping: route.scope)
        result.metric = route.metric
        result.type = route.type == 0 ? 1 : UInt8(clamping: route.type)
        result.isOnlink = route.onlink
        result.mtu = route.mtu
        return Route(route: result, device: route.device)
    }

    private static func address(_ bytes: some Collection<UInt8>, _ what: String) throws(AgentFailure) -> IPAddress {
        guard let address = IPAddress(bytes) else {
            throw AgentFailure(.invalidArgument, "\(what): an address of \(bytes.count) bytes")
        }
        return address
    }
}
