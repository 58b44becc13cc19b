import Glibc
import GuestSystem
import LinuxSystem

/// Configures the guest's network as the host requests. It covers the machine's own interfaces; what a container makes itself
/// (bridges, tunnels) is left alone.
struct GuestNetwork {
    /// How long an interface that was just added may take to appear.
    private static let interfaceTimeout = Duration.seconds(2)
    /// RTPROT_STATIC: routes that are made here.
    private static let own: UInt8 = 4

    private let socket: RouteSocket
    private let request: NetworkRequest

    init(_ request: NetworkRequest) throws(AgentFailure) {
        self.request = request
        socket = try during("open rtnetlink") { try RouteSocket() }
    }

    /// Makes the network what is requested. What isn't named is removed.
    func converge() throws(AgentFailure) {
        let links = try findLinks()
        for (interface, link) in zip(request.interfaces, links) {
            try during("interface \(interface.name)") { try prepare(interface, link) }
        }
        try during("rename interfaces") { try rename(links) }
        for (interface, link) in zip(request.interfaces, links) {
            try during("interface \(interface.name)") { try setUp(interface, link) }
        }
        let numbers = Dictionary(
            zip(request.interfaces.map(\.name), links.map(\.index)), uniquingKeysWith: { first, _ in first })
        try convergeRoutes(numbers)
        try convergeNeighbours(numbers)
    }

    // MARK: Interfaces

    /// The machine's own interfaces, which no software made.
    private func hardware() throws(AgentFailure) -> [NetworkLink] {
        try during("list interfaces") { try socket.links().filter { $0.isEthernet && $0.kind.isEmpty } }
    }

    /// The links of the requested interfaces, in their order. The others are released: the host takes a device away when this
    /// has returned.
    private func findLinks() throws(AgentFailure) -> [NetworkLink] {
        let clock = ContinuousClock()
        let end = clock.now + Self.interfaceTimeout
        HotplugSlots.probe()
        while true {
            let links = try hardware()
            let found = request.interfaces.map { interface in
                // The latest: one that was removed and added again with its address may be here twice.
                links.last { $0.hardwareAddress == interface.hardwareAddress }
            }
            guard let missing = found.firstIndex(where: { $0 == nil }) else {
                let result = found.compactMap { $0 }
                for link in links where !result.contains(link) { try release(link) }
                return result
            }
            guard clock.now < end else {
                let address = hardwareAddressText(request.interfaces[missing].hardwareAddress)
                throw AgentFailure(.notFound, "the machine has no interface \(address)")
            }
            HotplugSlots.probe()
            usleep(5000)
        }
    }

    /// Takes an interface out of use. One in an MMIO slot disappears with its driver; a PCI device is unplugged by the machine.
    private func release(_ link: NetworkLink) throws(AgentFailure) {
        try during("interface \(link.name)") {
            for address in try socket.addresses() where address.link == link.index { try socket.remove(address) }
            if link.isUp { try socket.setLink(link.index, up: false) }
            try HotplugSlots.unbind(interface: link.name)
        }
    }

    private func prepare(_ interface: NetworkRequest.Interface, _ link: NetworkLink) throws {
        if link.name != interface.name, link.isUp { try socket.setLink(link.index, up: false) }
        if link.mtu != interface.mtu { try socket.setLink(link.index, mtu: interface.mtu) }
        if link.hasNoARP != interface.hasNoARP { try socket.setLink(link.index, noARP: interface.hasNoARP) }
    }

    /// Gives each its name. One that has another's name gets a temporary name first.
    private func rename(_ links: [NetworkLink]) throws(SystemError) {
        let names = request.interfaces.map(\.name)
        for link in try socket.links() where names.contains(link.name) {
            let owner = links[names.firstIndex(of: link.name) ?? 0]
            if owner.index == link.index { continue }
            if link.isUp { try socket.setLink(link.index, up: false) }
            try socket.setLink(link.index, name: "was\(link.index)")
        }
        for (name, link) in zip(names, links) where link.name != name { try socket.setLink(link.index, name: name) }
    }

    private func setUp(_ interface: NetworkRequest.Interface, _ link: NetworkLink) throws {
        // Duplicates were detected where the host's interface got the address. Nothing is tentative when a program starts.
        try? writeText("0", to: "/proc/sys/net/ipv6/conf/\(interface.name)/accept_dad")
        let isUp = try socket.links().first { $0.index == link.index }?.isUp ?? false
        if isUp != interface.isUp { try socket.setLink(link.index, up: interface.isUp) }
        let addresses = try socket.addresses().filter { $0.link == link.index }
        let requested = interface.addresses.map { address in
            var address = address
            address.link = link.index
            return address
        }
        for address in addresses where !requested.contains(where: { $0.prefix == address.prefix }) {
            // The kernel's own, and those from router advertisements.
            if address.prefix.address.isLinkLocalIPv6 || !address.isPermanent { continue }
            try socket.remove(address)
        }
        for address in requested {
            let known = addresses.first { $0.prefix == address.prefix }
            if let known, known.broadcast == address.broadcast, known.scope == address.scope { continue }
            // A changed one is made anew: the kernel changes no more than its lifetime.
            if let known { try socket.remove(known) }
            try socket.add(address, route: false)
        }
    }

    // MARK: Routes and neighbours

    private func convergeRoutes(_ numbers: [String: Int32]) throws(AgentFailure) {
        var routes: [NetworkRoute] = []
        for item in request.routes {
            var route = item.route
            route.origin = Self.own
            if !item.device.isEmpty {
                guard let number = numbers[item.device] else {
                    throw AgentFailure(.invalidArgument, "route \(route): no interface \(item.device)")
                }
                // An interface that is down has no routes.
                if request.interfaces.contains(where: { $0.name == item.device && !$0.isUp }) { continue }
                route.link = number
            }
            routes.append(route)
        }
        let present = try during("list routes") { try socket.routes() }
        let isOurs = { (route: NetworkRoute) in
            route.link == 0 ? route.origin == Self.own : numbers.values.contains(route.link)
        }
        try during("change routes") {
            for route in present where isOurs(route) && !routes.contains(where: { $0.isSame(as: route) }) {
                if route.isLinkLocal || route.origin == 9 || route.isMultipath { continue }
                try socket.remove(route)
            }
            // Gateways must be reachable before they are named.
            let missing = routes.filter { route in !present.contains { $0.isSame(as: route) } }
            for route in missing where route.gateway == nil { try socket.add(route) }
            for route in missing where route.gateway != nil { try socket.add(route) }
        }
    }

    private func convergeNeighbours(_ numbers: [String: Int32]) throws(AgentFailure) {
        try during("change neighbours") {
            let neighbours = request.neighbours.compactMap { neighbour in
                numbers[neighbour.device].map {
                    NetworkNeighbour(
                        link: $0, address: neighbour.address, hardwareAddress: neighbour.hardwareAddress)
                }
            }
            let present = try socket.neighbours()
            for neighbour in present where numbers.values.contains(neighbour.link) && !neighbours.contains(neighbour) {
                try socket.remove(neighbour)
            }
            for neighbour in neighbours where !present.contains(neighbour) { try socket.add(neighbour) }
        }
    }
}

extension NetworkRoute {
    /// The route that comes with an interface's own IPv6 address.
    fileprivate var isLinkLocal: Bool { destination?.address.isLinkLocalIPv6 == true && gateway == nil }
}
