import CLinux
import Glibc
import LinuxSystem
import Testing

@testable import TTRPC

/// The sockets that a server listens on and a client connects to.
@Suite(.timeLimit(.minutes(1))) struct SocketTests {
    private static func echoes(_ client: TTRPCClient) async throws -> Bool {
        try await ProbeServiceClient(client).echo(ProbeItem(3)).number == 3
    }

    @Test func aUnixSocketByItsPath() async throws {
        let directory = try TemporaryDirectory()
        defer { directory.remove() }
        let path = "\(directory.path)/socket"
        let server = TTRPCServer([.probe(Probe())])
        try await server.serve(unixPath: path)
        for _ in 0..<3 { #expect(try await Self.echoes(TTRPCClient(unixPath: path))) }
        #expect(try await eventually { server.connectionCount == 0 })
        await server.stop()
        let refused = await failure { () throws(TTRPCError) in
            try await TTRPCClient(unixPath: path) { Issue.record("onClose without a connection: \($0)") }
        }
        #expect(refused?.code == .unavailable && refused?.message.contains(path) == true)
    }

    @Test func aPathThatIsTakenOrMissingIsNamed() async throws {
        let server = TTRPCServer([])
        for path in ["/proc/martlet.sock", "/tmp/\(String(repeating: "x", count: 200))"] {
            let error = await failure { () throws(TTRPCError) in try await server.serve(unixPath: path) }
            #expect(error?.message.contains(path) == true)
            let missing = await failure { () throws(TTRPCError) in try await TTRPCClient(unixPath: path) }
            #expect(missing?.message.contains(path) == true)
        }
    }

    @Test func aListeningDescriptorThatWasInherited() async throws {
        let directory = try TemporaryDirectory()
        defer { directory.remove() }
        let path = "\(directory.path)/socket"
        let server = TTRPCServer([.probe(Probe())])
        do {
            let listening = SharedDescriptor(try UnixAddress.listen(path))
            try await server.serve(listening: listening)
        }
        #expect(try await Self.echoes(TTRPCClient(unixPath: path)))
        await server.stop()
    }

    /// A file, a socket of packets, a listening one to connect, a connected one to listen on.
    @Test func aDescriptorOfTheWrongKindIsRefused() async throws {
        let directory = try TemporaryDirectory()
        defer { directory.remove() }
        let listening = SharedDescriptor(try UnixAddress.listen("\(directory.path)/socket"))
        let (connected, other) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let (packets, _) = try SharedDescriptor.socketPair(SOCK_SEQPACKET)
        let file = SharedDescriptor(try OwnedDescriptor.memory("no-socket", size: 10))
        let server = TTRPCServer([])
        for descriptor in [file, packets, listening] {
            let client = await failure { () throws(TTRPCError) in try await TTRPCClient(connected: descriptor) }
            #expect(client != nil)
            #expect(await failure { () throws(TTRPCError) in try await server.serve(connected: descriptor) } != nil)
        }
        for descriptor in [file, packets, connected] {
            #expect(await failure { () throws(TTRPCError) in try await server.serve(listening: descriptor) } != nil)
        }
        withExtendedLifetime(other) {}
    }

    @Test func anOtherSideThatIsGoneFailsTheFirstCall() async throws {
        let near = try SharedDescriptor.socketPair(SOCK_STREAM).0
        let gone = await failure { () throws(TTRPCError) in
            try await ProbeServiceClient(TTRPCClient(connected: near)).echo(ProbeItem())
        }
        #expect(gone?.code == .unavailable)
        let never = SharedDescriptor(OwnedDescriptor(owning: socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)))
        #expect(await failure { () throws(TTRPCError) in try await TTRPCClient(connected: never) } != nil)
        #expect(await failure { () throws(TTRPCError) in try await TTRPCServer([]).serve(connected: never) } != nil)
    }

    /// The kernel connects a machine with itself as context 1, where it has the loopback transport.
    private static let hasLoopback: Bool = {
        guard let (server, address) = try? vsock(cid: UInt32.max, port: 21_023) else { return false }
        guard withAddress(address, { bind(server.raw, $0, $1) }) == 0, listen(server.raw, 1) == 0 else { return false }
        guard let (client, there) = try? vsock(cid: 1, port: 21_023) else { return false }
        return withAddress(there) { connect(client.raw, $0, $1) } == 0
    }()

    private static func vsock(cid: UInt32, port: UInt32) throws -> (SharedDescriptor, sockaddr_vm) {
        let type = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        let socket = OwnedDescriptor(owning: try check("socket", "vsock", socket(AF_VSOCK, type, 0)))
        var address = sockaddr_vm()
        address.svm_family = sa_family_t(AF_VSOCK)
        address.svm_cid = cid
        address.svm_port = port
        return (SharedDescriptor(socket), address)
    }

    private static func withAddress(
        _ address: sockaddr_vm, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32
    ) -> Int32 {
        withUnsafePointer(to: address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                body($0, socklen_t(MemoryLayout<sockaddr_vm>.size))
            }
        }
    }

    @Test(.enabled(if: (try? vsock(cid: 0, port: 0)) != nil, "the kernel has no vsock"))
    func aVsockPortIsListenedOnOnce() async throws {
        let server = TTRPCServer([])
        try await server.serve(vsockPort: 21_026)
        let taken = await failure { () throws(TTRPCError) in try await server.serve(vsockPort: 21_026) }
        #expect(taken?.code == .unavailable && taken?.message.contains("21026") == true)
        await server.stop()
        try await TTRPCServer([]).serve(vsockPort: 21_026)
    }

    @Test(.enabled(if: hasLoopback, "the kernel has no vsock loopback"))
    func aVsockPort() async throws {
        let server = TTRPCServer([.probe(Probe())])
        try await server.serve(vsockPort: 21_024)
        #expect(try await Self.echoes(TTRPCClient(vsock: 1, port: 21_024)))
        await server.stop()
    }

    @Test(.enabled(if: hasLoopback, "the kernel has no vsock loopback"))
    func vsockDescriptors() async throws {
        let server = TTRPCServer([.probe(Probe())])
        let (listening, address) = try Self.vsock(cid: UInt32.max, port: 21_025)
        try check("bind", "vsock", Self.withAddress(address) { bind(listening.raw, $0, $1) })
        try check("listen", "vsock", listen(listening.raw, 5))
        try await server.serve(listening: listening)
        let (connected, there) = try Self.vsock(cid: 1, port: 21_025)
        try check("connect", "vsock", Self.withAddress(there) { connect(connected.raw, $0, $1) })
        #expect(try await Self.echoes(TTRPCClient(connected: connected)))
        await server.stop()
    }
}
