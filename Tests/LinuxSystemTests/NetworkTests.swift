import CLinux
import Glibc
import LinuxSystem
import Testing

/// Real namespaces, made and left by the tests. They need root.
@Suite(.enabled(if: getuid() == 0, "needs root")) struct NetworkTests {
    /// A namespace with a pair of links, both up: `a` and `b`.
    private func pair() throws -> (NetworkNamespace, RouteSocket, a: Int32, b: Int32) {
        let namespace = try NetworkNamespace.make()
        let socket = try namespace.run { () throws(SystemError) in try RouteSocket() }
        try socket.makeVeth("a", peer: "b")
        let a = try #require(try socket.link(named: "a"))
        let b = try #require(try socket.link(named: "b"))
        try socket.setLink(a.index, up: true)
        try socket.setLink(b.index, up: true)
        return (namespace, socket, a.index, b.index)
    }

    @Test func linksAreListedAndChanged() throws {
        let (_, socket, a, _) = try pair()
        try socket.setLink(a, up: false)
        try socket.setLink(a, name: "eth0")
        try socket.setLink(a, mtu: 9000)
        try socket.setLink(a, hardwareAddress: [2, 0, 0, 0, 0, 1])
        try socket.setLink(a, noARP: true)
        try socket.setLink(a, up: true)
        let link = try #require(try socket.link(named: "eth0"))
        #expect(link.index == a && link.kind == "veth" && link.mtu == 9000 && link.isUp && link.hasNoARP)
        #expect(link.isEthernet && link.hardwareAddress == [2, 0, 0, 0, 0, 1])
        try socket.makeMacvlan("m", on: a)
        #expect(try socket.link(named: "m")?.kind == "macvlan")
        try socket.removeLink(a)
        try socket.removeLink(a)
        #expect(try socket.links().map(\.name) == ["lo"])
    }

    @Test func theKernelsOwnWordsComeWithAnError() throws {
        let (_, socket, a, _) = try pair()
        let error = #expect(throws: SystemError.self) { try socket.setLink(a, mtu: 10) }
        #expect(error?.errno == .invalidArgument && error?.detail == "mtu less than device minimum")
        #expect(error?.description.contains("set mtu 10 link \(a): ") == true)
    }

    @Test func addressesComeAndGo() throws {
        let (_, socket, a, _) = try pair()
        var v4 = LinkAddress(link: a, prefix: try #require(IPPrefix("10.1.0.2/24")))
        v4.broadcast = IPAddress("10.1.0.255")
        let v6 = LinkAddress(link: a, prefix: try #require(IPPrefix("fd00::2/64")))
        try socket.add(v4, route: false)
        try socket.add(v6)
        let found = try socket.addresses()
        #expect(found.contains { $0.prefix == v4.prefix && $0.broadcast == v4.broadcast && $0.isPermanent })
        #expect(found.contains { $0.prefix == v6.prefix && !$0.isDuplicate })
        let routes = try socket.routes()
        #expect(!routes.contains { $0.destination == IPPrefix("10.1.0.0/24") })
        #expect(routes.contains { $0.destination == IPPrefix("fd00::/64") })
        try socket.remove(v4)
        try socket.remove(v4)
        #expect(try !socket.addresses().contains { $0.prefix == v4.prefix })
    }

    @Test func everyKindOfRouteIsReadAsItWasWritten() throws {
        let (_, socket, a, _) = try pair()
        try socket.add(LinkAddress(link: a, prefix: try #require(IPPrefix("10.1.0.2/24"))), route: false)
        try socket.add(LinkAddress(link: a, prefix: try #require(IPPrefix("fd00::2/64"))), route: false)
        func route(_ destination: String?, _ family: Int32 = AF_INET, _ change: (inout NetworkRoute) -> Void)
            -> NetworkRoute
        {
            var route = NetworkRoute(family: UInt8(family), destination: destination.flatMap { IPPrefix($0) })
            route.link = a
            change(&route)
            return route
        }
        let routes = [
            route("10.1.0.0/24") {
                $0.scope = 253
                $0.preferredSource = IPAddress("10.1.0.2")
            },
            route("169.254.1.1/32") { $0.scope = 253 },
            route(nil) { $0.gateway = IPAddress("169.254.1.1") },
            route(nil) {
                $0.gateway = IPAddress("169.254.9.9")
                $0.isOnlink = true
                $0.metric = 50
            },
            route("10.9.0.0/16") {
                $0.gateway = IPAddress("10.1.0.1")
                $0.mtu = 1400
            },
            route("10.10.0.0/16") { $0.gateway = IPAddress("fe80::1") },
            route("10.66.0.0/16") {
                $0.type = 6
                $0.link = 0
            },
            route("10.67.0.0/16") {
                $0.type = 7
                $0.link = 0
            },
            route("fd00::/64", AF_INET6) { $0.metric = 256 },
            route(nil, AF_INET6) {
                $0.gateway = IPAddress("fe80::1")
                $0.metric = 1024
            },
            route("fd66::/32", AF_INET6) {
                $0.type = 7
                $0.metric = 1024
                $0.link = 0
            },
        ]
        for route in routes { try socket.add(route) }
        #expect(throws: SystemError.self) { try socket.add(routes[0]) }
        var found = try socket.routes()
        for route in routes { #expect(found.contains { $0.isSame(as: route) }, "\(route) in \(found)") }
        for route in routes {
            try socket.remove(route)
            try socket.remove(route)
        }
        found = try socket.routes()
        for route in routes { #expect(!found.contains { $0.isSame(as: route) }, "\(route)") }
    }

    /// As two interfaces on one network have.
    @Test func routesOfTwoLinksToOneDestination() throws {
        let (_, socket, a, b) = try pair()
        for destination in ["10.1.0.0/24", "fd00::/64"] {
            let prefix = try #require(IPPrefix(destination))
            for link in [a, b] {
                var route = NetworkRoute(family: prefix.address.family, destination: prefix)
                route.link = link
                route.metric = 256
                try socket.add(route)
            }
            let found = try socket.routes().filter { $0.destination == prefix }
            #expect(Set(found.map(\.link)) == [a, b] && found.allSatisfy { !$0.isMultipath })
        }
    }

    @Test func neighboursAreKept() throws {
        let (_, socket, a, _) = try pair()
        let neighbour = NetworkNeighbour(
            link: a, address: try #require(IPAddress("10.1.0.9")), hardwareAddress: [2, 0, 0, 0, 0, 9])
        try socket.add(neighbour)
        #expect(try socket.neighbours() == [neighbour])
        try socket.remove(neighbour)
        try socket.remove(neighbour)
        #expect(try socket.neighbours().isEmpty)
    }

    @Test func framesGoFromALinkToATapAndBack() throws {
        let (namespace, socket, a, b) = try pair()
        let tap = try namespace.run { () throws(SystemError) in try Tap("t", queues: 2) }
        let link = try #require(try socket.link(named: "t"))
        #expect(link.kind == "tun" && tap.queues.count == 2)
        try socket.setLink(link.index, up: true)
        try socket.redirect(a, to: link.index)
        try socket.redirect(a, to: link.index)
        try socket.redirect(link.index, to: a)
        #expect(Set(try socket.ingressLinks()) == [a, link.index])
        try exchange(namespace, link: b, tap)
        try socket.removeIngress(a)
        try socket.removeIngress(a)
        #expect(try socket.ingressLinks() == [link.index])
    }

    /// Sends a frame from `link` to the tap, and one back.
    private func exchange(_ namespace: NetworkNamespace, link: Int32, _ tap: Tap) throws {
        let wire = try namespace.run { () throws(SystemError) in
            SharedDescriptor(
                OwnedDescriptor(
                    owning: try check("socket", "packet", socket(AF_PACKET, Int32(SOCK_RAW.rawValue), 0x5a88))))
        }
        var address = sockaddr_storage()
        withUnsafeMutableBytes(of: &address) {
            $0.storeBytes(of: UInt16(AF_PACKET), as: UInt16.self)
            $0.storeBytes(of: 0x5a88, toByteOffset: 2, as: UInt16.self)
            $0.storeBytes(of: link, toByteOffset: 4, as: Int32.self)
        }
        try withUnsafePointer(to: &address) {
            _ = try $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                try check("bind", "packet", bind(wire.raw, $0, 20))
            }
        }
        var frame = [UInt8](repeating: 0xff, count: 12) + [0x88, 0x5a] + [UInt8](repeating: 7, count: 60)
        #expect(send(wire.raw, frame, frame.count, 0) == frame.count)
        let received = try #require(receive(tap, like: frame))
        #expect(Array(received.dropFirst(Tap.headerSize)) == frame)
        frame[20] = 8
        let sent = [UInt8](repeating: 0, count: Tap.headerSize) + frame
        #expect(write(tap.queues[0].raw, sent, sent.count) == sent.count)
        var answer = [UInt8](repeating: 0, count: 100)
        var item = pollfd(fd: wire.raw, events: Int16(POLLIN), revents: 0)
        #expect(poll(&item, 1, 5000) == 1)
        #expect(recv(wire.raw, &answer, answer.count, 0) == frame.count)
        #expect(Array(answer.prefix(frame.count)) == frame)
    }

    /// The frame of that protocol that arrives at one of the tap's queues within 5 s.
    private func receive(_ tap: Tap, like frame: [UInt8]) -> [UInt8]? {
        var buffer = [UInt8](repeating: 0, count: 2000)
        for _ in 0..<500 {
            for queue in tap.queues {
                let count = read(queue.raw, &buffer, buffer.count)
                if count >= 26, buffer[24..<26] == frame[12..<14] { return Array(buffer.prefix(count)) }
            }
            usleep(10_000)
        }
        return nil
    }

    @Test func changesAreTold() throws {
        let (namespace, socket, a, _) = try pair()
        let watch = try namespace.run { () throws(SystemError) in
            try RouteSocket(groups: [.links, .addresses, .routes])
        }
        #expect(!watch.drain())
        try socket.add(LinkAddress(link: a, prefix: try #require(IPPrefix("10.1.0.2/24"))))
        #expect(watch.drain() && !watch.drain())
    }
}
