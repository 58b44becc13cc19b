import AgentContract
import CLinux
import Glibc
import Hypervisor
import LinuxSystem
import Logging
import OCISpec
import Synchronization
import Testing
import VMMControl

@testable import Sandbox

/// A machine of which only the streams are used: the test is the agent.
private final class FakeMachine: VirtualMachine {
    /// The guest's ends, by the number that opened them.
    private let streams = Mutex<[UInt64: SharedDescriptor]>([:])
    let console: Console

    init() throws {
        console = try Console("fake", source: SharedDescriptor(OwnedDescriptor.open("/dev/null", O_RDONLY))) { _ in }
    }

    func connect(port: UInt32, stream: Int32, deadline: Duration) throws {
        let end = SharedDescriptor(OwnedDescriptor(owning: dup(stream)))
        try startThread("guest") { [self] in
            var number: UInt64 = 0
            let count = withUnsafeMutableBytes(of: &number) { recv(end.raw, $0.baseAddress, 8, Int32(MSG_WAITALL)) }
            if count == 8 { streams.withLock { $0[UInt64(littleEndian: number)] = end } }
        }
    }

    /// Waits until the host has opened a stream.
    func stream(_ number: UInt64) throws -> SharedDescriptor {
        for _ in 0..<3000 {
            if let stream = streams.withLock({ $0.removeValue(forKey: number) }) { return stream }
            usleep(10_000)
        }
        throw SandboxError.failed("no stream \(number)")
    }

    var state: MachineState { .running }
    var processes: [(name: String, pid: Int32)] { [] }
    func agentReady(within limit: Duration) async throws {}
    func pause() throws {}
    func resume() throws {}
    func addShare(name: String, tree: Int32, readOnly: Bool) throws {}
    func removeShare(name: String) throws {}
    func addNetwork(hardwareAddress: [UInt8], queues: [Int32]) throws {}
    func removeNetwork(hardwareAddress: [UInt8]) throws {}
    func addDisk(_ disk: Disk) throws {}
    func removeDisk(id: String) throws {}
    func setMemory(bytes: UInt64) throws {}
    func setVCPUs(_ count: Int) throws {}
    func hotplug(timeout: Duration) throws -> ProcessStatistics.Hotplug {
        .init(vcpus: 1, requested: 0, plugged: 0)
    }
    func setBalloon(bytes: UInt64) throws {}
    func balloon(timeout: Duration) throws -> ProcessStatistics.Balloon { .init(target: 0, size: 0, reported: nil) }
    func kill(_ reason: VMEnd) {}
    func end() async -> VMEnd { .poweredOff }
}

@Suite struct TargetTests {
    /// Targets of a machine with a server at `path`, and the agent's stream of requests.
    private struct Scene {
        let machine: FakeMachine
        let targets: PodTargets
        let path: String
        let listener: SharedDescriptor

        init() throws {
            var template = Array("/tmp/martlet-targets.XXXXXX".utf8CString)
            try #require(mkdtemp(&template) != nil)
            path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self) + "/socket"
            listener = SharedDescriptor(try UnixAddress.listen(path))
            machine = try FakeMachine()
            targets = PodTargets(
                AgentLink(machine: machine), namespace: nil, limit: .seconds(10), logger: Logger(label: "test"))
        }

        func remove() {
            targets.end()
            unlink(path)
            rmdir(String(path.dropLast("/socket".count)))
        }

        func add() async throws -> (target: UInt32, requests: SharedDescriptor) {
            let target = try await targets.add(.socket(path: path), container: "c")
            return (target, try machine.stream(StreamNumber.targets))
        }

        func accept() throws -> SharedDescriptor {
            SharedDescriptor(OwnedDescriptor(owning: try check("accept", path, Glibc.accept(listener.raw, nil, nil))))
        }
    }

    private func ask(_ requests: SharedDescriptor, _ target: UInt32, _ connection: UInt64) {
        let bytes = TargetMessage(.connect, target: target, connection: connection).encoded
        #expect(send(requests.raw, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count)
    }

    private func refusal(_ requests: SharedDescriptor) -> UInt64? {
        var number: UInt64 = 0
        let count = withUnsafeMutableBytes(of: &number) { recv(requests.raw, $0.baseAddress, 8, Int32(MSG_WAITALL)) }
        return count == 8 ? UInt64(littleEndian: number) : nil
    }

    private func text(_ socket: SharedDescriptor) -> String {
        var buffer = [UInt8](repeating: 0, count: 100)
        let count = read(socket.raw, &buffer, buffer.count)
        return String(decoding: buffer.prefix(max(count, 0)), as: UTF8.self)
    }

    @Test func aRequestBecomesAConnection() async throws {
        let scene = try Scene()
        defer { scene.remove() }
        let (target, requests) = try await scene.add()
        ask(requests, target, 1)
        let (guest, server) = (try scene.machine.stream(StreamNumber.targetConnection(1)), try scene.accept())
        #expect(send(guest.raw, "to", 2, 0) == 2 && text(server) == "to")
        #expect(send(server.raw, "from", 4, 0) == 4 && text(guest) == "from")
        // It goes with its container.
        scene.targets.remove(container: "c")
        #expect(text(server) == "" && text(guest) == "")
        ask(requests, target, 2)
        #expect(refusal(requests) == 2)
    }

    @Test func whatTheHostDidNotNameIsRefused() async throws {
        let scene = try Scene()
        defer { scene.remove() }
        let (target, requests) = try await scene.add()
        for (number, other) in [0, target + 1, .max].enumerated() {
            ask(requests, other, UInt64(number + 1))
            #expect(refusal(requests) == UInt64(number + 1))
        }
        // Its server is not there.
        unlink(scene.path)
        ask(requests, target, 9)
        #expect(refusal(requests) == 9)
        // No message at all ends the stream.
        #expect(send(requests.raw, [UInt8](repeating: 0xff, count: 16), 16, Int32(MSG_NOSIGNAL)) == 16)
        #expect(refusal(requests) == nil)
    }

    @Test func thereIsAnEndToConnections() async throws {
        let scene = try Scene()
        defer { scene.remove() }
        let (target, requests) = try await scene.add()
        let most = UInt64(TargetMessage.maximumConnections)
        var kept: [SharedDescriptor] = []
        for number in 1...most {
            ask(requests, target, number)
            kept += [try scene.machine.stream(StreamNumber.targetConnection(number)), try scene.accept()]
        }
        ask(requests, target, most + 1)
        #expect(refusal(requests) == most + 1)
        // A number that is in use.
        ask(requests, target, 1)
        #expect(refusal(requests) == 1)
        // One that ends makes place for another.
        kept.removeFirst(2)
        var number = most + 2
        while true {
            ask(requests, target, number)
            var item = pollfd(fd: requests.raw, events: Int16(POLLIN), revents: 0)
            if poll(&item, 1, 100) == 0 { break }
            #expect(refusal(requests) == number)
            number += 1
        }
        _ = try scene.machine.stream(StreamNumber.targetConnection(number))
        withExtendedLifetime(kept) {}
    }

    @Test func loopbackResolversAreRead() {
        let text = """
            # nameserver 127.0.0.2
            search example.org
            nameserver 127.0.0.11
            nameserver\t::1
             nameserver 127.0.0.3
            nameserver 10.0.0.1
            nameserver 127.0.0.11
            nameserver
            nameserver 127.x
            options ndots:0
            """
        #expect(ResolverFile.loopbackServers(text).map(\.description) == ["127.0.0.11", "::1", "127.0.0.3"])
        #expect(ResolverFile.loopbackServers("nameserver 8.8.8.8\n") == [])
    }
}
