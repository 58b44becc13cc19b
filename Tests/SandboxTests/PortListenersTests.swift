import CLinux
import Glibc
import LinuxSystem
import Logging
import Synchronization
import Testing

@testable import Sandbox

/// Ports that a guest names, in a network namespace of the test's own.
@Suite(.enabled(if: geteuid() == 0, "needs root"), .timeLimit(.minutes(1))) struct PortListenersTests {
    /// Listeners on a thread of their own; the test is the guest.
    private final class Scene: Sendable {
        let namespace: NetworkNamespace
        let guest: SharedDescriptor
        let taken = Mutex<[UInt16]>([])
        /// The addresses that connections were made to.
        let addresses = Mutex<[UInt32]>([])
        let ended: Promise<Void>
        let lines = LogTests.Lines()
        private let stopped: SharedDescriptor

        init() throws {
            namespace = try NetworkNamespace.make()
            try namespace.run { () throws(SystemError) in
                let route = try RouteSocket()
                try route.setLink(1, up: true)
            }
            let ports: SharedDescriptor
            (ports, guest) = try SharedDescriptor.socketPair(SOCK_STREAM)
            stopped = try SharedDescriptor.event()
            ended = try Promise()
            try startThread("test ports") { [self, namespace, stopped] in
                let listeners = try? PortListeners(
                    of: "p", namespace, ports, until: stopped, PacedLog(lines.logger)
                ) { _, port, address in
                    self.addresses.withLock { $0.append(address) }
                    self.taken.withLock { $0.append(port) }
                }
                try? listeners?.run()
                ended.settle(())
            }
        }

        func stop() { stopped.signal() }

        func send(_ lists: [[UInt16]]) {
            var bytes: [UInt8] = []
            for list in lists {
                bytes.append(littleEndian: UInt16(list.count))
                for port in list { bytes.append(littleEndian: port) }
            }
            var rest = bytes[...]
            while !rest.isEmpty {
                let count = rest.withUnsafeBytes {
                    Glibc.send(guest.raw, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
                }
                if count <= 0 { return }
                rest = rest.dropFirst(count)
            }
        }

        /// The ports on which somebody listens (proc(5), /proc/net/tcp).
        func ports() throws -> [UInt16] {
            try namespace.run { () throws(SystemError) in
                try readText("/proc/thread-self/net/tcp").split(separator: "\n").dropFirst().compactMap { line in
                    let fields = line.split(separator: " ")
                    guard fields[3] == "0A" else { return nil }
                    return fields[1].split(separator: ":").last.flatMap { UInt16($0, radix: 16) }
                }.sorted()
            }
        }

        func waitForPorts(_ wanted: [UInt16]) throws {
            for _ in 0..<2000 {
                if try ports() == wanted { return }
                usleep(5000)
            }
            Issue.record("\(try ports()), not \(wanted)")
        }
    }

    /// The threads of this process that serve forwarded ports.
    private func threads() throws -> Int {
        try directoryNames("/proc/self/task").count { task in
            (try? readText("/proc/self/task/\(task)/comm"))?.hasPrefix("test ports") == true
        }
    }

    @Test func portsComeAndGoOnOneThread() throws {
        let scene = try Scene()
        scene.send([[80, 443, 8080]])
        try scene.waitForPorts([80, 443, 8080])
        #expect(try threads() == 1)
        let client = try scene.namespace.run { () throws(SystemError) in
            SharedDescriptor(try InternetAddress(.loopback, port: 443).connected(SOCK_STREAM))
        }
        while scene.taken.withLock({ $0.isEmpty }) { usleep(1000) }
        #expect(scene.taken.withLock { $0 } == [443])
        withExtendedLifetime(client) {}
        scene.send([[443]])
        try scene.waitForPorts([443])
        scene.stop()
        #expect(scene.ended.wait(timeout: .seconds(10)) != nil)
        #expect(try scene.ports() == [])
    }

    /// By 127.0.0.1, by another address of the namespace's, and where somebody has the port on such an address.
    @Test func aConnectionSaysWhatItWasMadeTo() throws {
        let scene = try Scene()
        let own = try #require(IPAddress("10.9.8.7"))
        #expect(try scene.namespace.run { () throws(SystemError) in system("ip address add \(own)/32 dev lo") } == 0)
        let other = try scene.namespace.run { () throws(SystemError) in
            SharedDescriptor(try InternetAddress(own, port: 81).bound(SOCK_STREAM))
        }
        scene.send([[80, 81]])
        try scene.waitForPorts([80, 81, 81])
        for (address, port) in [(IPAddress.loopback, 80), (own, 80), (.loopback, 81)] as [(IPAddress, UInt16)] {
            let before = scene.taken.withLock { $0.count }
            let client = try scene.namespace.run { () throws(SystemError) in
                SharedDescriptor(try InternetAddress(address, port: port).connected(SOCK_STREAM))
            }
            while scene.taken.withLock({ $0.count }) == before { usleep(1000) }
            withExtendedLifetime(client) {}
        }
        #expect(scene.addresses.withLock { $0 } == [0, 0x0a09_0807, 0])
        withExtendedLifetime(other) {}
        scene.stop()
    }

    @Test func aGuestGetsSoManyPortsAndNoMore() throws {
        let scene = try Scene()
        let all = (1...1000).map { UInt16($0) }
        scene.send([all])
        try scene.waitForPorts(Array(all.prefix(128)))
        // Those that it has stay; the place of one that goes is free.
        scene.send([Array(all.dropFirst(10))])
        try scene.waitForPorts(Array(11...138))
        let warning = "network: pod p listens on 1000 ports: 127.0.0.1 of its network namespace reaches 128 of them"
        #expect(scene.lines.all.withLock { $0 } == [warning], "once")
        scene.stop()
    }

    /// A guest that opens and closes ports in a loop waits; what counts is the list that it sends last.
    @Test func changesHaveAPace() throws {
        let scene = try Scene()
        let count = Mutex(0)
        let flood = try Promise<Void>()
        try startThread("flood") {
            // Each fills what is read at once.
            for number in 0..<40 {
                scene.send([[UInt16]](repeating: (1...16000).map { UInt16($0 + number) }, count: 2))
                count.withLock { $0 += 1 }
            }
            flood.settle(())
        }
        usleep(2_000_000)
        // 64 KiB a read; 8 reads at once and 2 a second, and what fits in the socket's buffer.
        #expect(count.withLock { $0 } < 25)
        #expect(flood.current == nil)
        scene.stop()
        #expect(scene.ended.wait(timeout: .seconds(10)) != nil)
    }

    @Test func theEndOfTheGuestsStreamIsTheEnd() throws {
        let scene = try Scene()
        scene.send([[80]])
        try scene.waitForPorts([80])
        shutdown(scene.guest.raw, Int32(SHUT_RDWR))
        #expect(scene.ended.wait(timeout: .seconds(10)) != nil)
        #expect(try scene.ports() == [])
    }
}
