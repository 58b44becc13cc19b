import Glibc
import LinuxSystem
import PodNetwork
import Synchronization
import Testing

/// Pods' networks in namespaces that the tests make themselves. They need root.
@Suite(.serialized, .enabled(if: getuid() == 0, "needs root")) struct PodNetworkTests {
    /// A namespace as an engine leaves it, `eth0` in it, whose other end `out` is there too.
    private struct Engine {
        let namespace: NetworkNamespace
        let socket: RouteSocket
        let eth0: NetworkLink
        var path: String { "/proc/self/fd/\(namespace.descriptor.raw)" }

        init() throws {
            namespace = try NetworkNamespace.make()
            socket = try namespace.run { () throws(SystemError) in try RouteSocket() }
            try socket.makeVeth("eth0", peer: "out")
            let link = try #require(try socket.link(named: "eth0"))
            try socket.setLink(link.index, mtu: 1400)
            try socket.setLink(link.index, up: true)
            eth0 = try #require(try socket.link(named: "eth0"))
            // No interface of the pod: it is another's in truth.
            try add("10.4.0.7/24")
            var gateway = NetworkRoute(family: UInt8(AF_INET))
            gateway.gateway = IPAddress("10.4.0.1")
            gateway.link = link.index
            try socket.add(gateway)
        }

        func add(_ address: String) throws {
            let prefix = try #require(IPPrefix(address))
            try socket.add(LinkAddress(link: eth0.index, prefix: prefix))
        }
    }

    @Test func interfacesAreConnectedAndTold() throws {
        let engine = try Engine()
        let network = try PodNetwork(path: engine.path)
        let made = try network.connect()
        #expect(made.map(\.name) == ["out", "eth0"] || made.map(\.name) == ["eth0", "out"])
        let connection = try #require(made.first { $0.name == "eth0" })
        #expect(connection.hardwareAddress == engine.eth0.hardwareAddress && connection.mtu == 1400)
        #expect(try network.connect().isEmpty)
        network.drop(connection)
        #expect(try network.plan().interfaces.map(\.name) == ["out"])
        #expect(try network.connect().map(\.name) == ["eth0"])
        let plan = try network.plan()
        let interface = try #require(plan.interfaces.first { $0.name == "eth0" })
        #expect(interface.isUp && interface.mtu == 1400)
        #expect(interface.addresses.contains { $0.prefix == IPPrefix("10.4.0.7/24") })
        #expect(plan.routes.contains { $0.route.destination == nil && $0.route.gateway == IPAddress("10.4.0.1") })
        #expect(
            plan.routes.contains {
                $0.device == "eth0" && $0.route.destination == IPPrefix("10.4.0.0/24") && $0.route.scope == 253
            })
        #expect(plan.warnings.isEmpty)
    }

    /// A server that was killed takes its taps along, and nothing else.
    @Test func whatADeadServerLeftIsCleared() throws {
        let engine = try Engine()
        let tap = try engine.namespace.run { () throws(SystemError) in try Tap("other", queues: 1) }
        let other = try #require(try engine.socket.link(named: "other"))
        try engine.socket.redirect(engine.eth0.index, to: other.index)
        withExtendedLifetime(tap) {}
        try PodNetwork.clear(engine.namespace)
        #expect(try engine.socket.ingressLinks().isEmpty)
        let network = try PodNetwork(path: engine.path)
        let made = try network.connect()
        let redirected = try engine.socket.ingressLinks()
        try PodNetwork.clear(engine.namespace)
        #expect(try engine.socket.ingressLinks() == redirected && redirected.count == 2 * made.count)
    }

    @Test func macvlansAreConnectedToo() throws {
        let engine = try Engine()
        try engine.socket.makeMacvlan("mac", on: engine.eth0.index)
        let network = try PodNetwork(path: engine.path, queues: 2)
        let made = try network.connect()
        #expect(made.first { $0.name == "mac" }?.queues.count == 2)
    }

    @Test func nothingIsLeft() throws {
        let engine = try Engine()
        let before = (try engine.socket.links(), descriptors())
        for _ in 0..<20 {
            let network = try PodNetwork(path: engine.path, queues: 2)
            #expect(try network.connect().count == 2)
            #expect(try engine.socket.links().count == before.0.count + 2)
            #expect(try engine.socket.ingressLinks().count == 4)
        }
        #expect(try engine.socket.links().map(\.index) == before.0.map(\.index))
        #expect(try engine.socket.ingressLinks().isEmpty)
        #expect(descriptors() == before.1)
    }

    @Test func aNamespaceWithoutAPathIsMade() throws {
        let network = try PodNetwork(path: nil)
        let socket = try network.namespace.run { () throws(SystemError) in try RouteSocket() }
        let loopback = try #require(try socket.links().first { $0.name == "lo" })
        #expect(loopback.isUp && loopback.isLoopback)
        #expect(try network.connect().isEmpty)
        #expect(try network.plan().interfaces.isEmpty)
        let error = #expect(throws: SystemError.self) { try PodNetwork(path: "/nonexistent/netns") }
        #expect(error?.description.contains("/nonexistent/netns") == true)
    }

    @Test func laterChangesAreTold() throws {
        let engine = try Engine()
        let network = try PodNetwork(path: engine.path)
        let change = try Promise<Bool>()
        let watch = try NetworkWatch(network.namespace) { change.settle(true) }
        try engine.add("fd04::7/64")
        #expect(change.wait(timeout: .seconds(5)) == true)
        withExtendedLifetime(watch) {}
        try engine.socket.removeLink(engine.eth0.index)
        #expect(try network.connect().isEmpty)
        #expect(try network.plan().interfaces.isEmpty)
    }

    /// The kernel runs the filter where the frames leave the tap, and follows the addresses.
    @Test(arguments: [true, false]) func framesFromOthersAreDropped(isFiltered: Bool) throws {
        let engine = try Engine()
        let other = try #require(try engine.socket.link(named: "out"))
        try engine.socket.setLink(other.index, up: true)
        let network = try PodNetwork(path: engine.path, filtersSources: isFiltered)
        let made = try network.connect()
        let guest = try #require(made.first { $0.name == "eth0" }?.queues.first)
        let wire = try #require(made.first { $0.name == "out" }?.queues.first)
        let own = engine.eth0.hardwareAddress
        func passes(_ frame: [UInt8]) -> Bool {
            let bytes = [UInt8](repeating: 0, count: Tap.headerSize) + frame
            guard write(guest.raw, bytes, bytes.count) == bytes.count else { return false }
            var buffer = [UInt8](repeating: 0, count: 4096)
            // The host's own protocols send frames too.
            while isReadable(wire.raw, 300) {
                let count = read(wire.raw, &buffer, buffer.count)
                if count > Tap.headerSize, buffer[Tap.headerSize..<count].starts(with: frame) { return true }
            }
            return false
        }
        #expect(passes(Frame.internet4("10.4.0.7", from: own)))
        #expect(passes(Frame.internet4("10.4.0.9", from: own)) != isFiltered)
        #expect(passes(Frame.internet4("10.4.0.7", from: Frame.own)) != isFiltered)
        #expect(passes(Frame.ethernet(0x88b5, from: own, [UInt8](repeating: 7, count: 50))) != isFiltered)
        #expect(passes(Array(Frame.internet4("10.4.0.7", from: own).prefix(24))) != isFiltered)
        #expect(passes(Frame.tagged(Frame.internet4("10.4.0.7", from: own))) != isFiltered)
        try engine.add("10.4.0.9/24")
        #expect(try network.connect().isEmpty)
        #expect(passes(Frame.internet4("10.4.0.9", from: own)))
        #expect(passes(Frame.internet4("10.4.0.7", from: own)))
    }

    @Test func aFilterHasRoomForManyAddresses() throws {
        let engine = try Engine()
        for number in 0..<90 { try engine.add("fd04::\(number + 10)/64") }
        let network = try PodNetwork(path: engine.path, filtersSources: true)
        #expect(try network.connect().count == 2)
        for number in 0..<90 { try engine.add("fd05::\(number + 10)/64") }
        let error = #expect(throws: SystemError.self) { try network.connect() }
        #expect(error?.description.contains("instructions, at most 4096") == true)
    }

    private func isReadable(_ descriptor: Int32, _ milliseconds: Int32) -> Bool {
        var item = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        return poll(&item, 1, milliseconds) == 1
    }

    private func identity(_ path: String) throws -> UInt {
        var facts = stat()
        try check("stat", path, stat(path, &facts))
        return facts.st_ino
    }

    /// How many this process has open.
    private func descriptors() -> Int {
        // Threads that have ended may hold one for a moment.
        usleep(100_000)
        guard let directory = opendir("/proc/self/fd") else { return -1 }
        defer { closedir(directory) }
        var count = 0
        while readdir(directory) != nil { count += 1 }
        return count
    }
}
