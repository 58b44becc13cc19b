import CLinux
import Glibc
import LinuxSystem
import Testing

@testable import Virtio

/// A guest's vsock driver, free to send anything, with the device under test and real sockets on the host's side.
final class FakeGuest {
    static let cid: UInt64 = 7
    private static let receiveBuffers = FakeMemory.base + 0x20000
    private static let transmitBuffers = FakeMemory.base + 0x80_0000
    private static let stride: UInt64 = 0x11000

    /// What the device has asked for.
    final class Asked {
        var watches: [Int32: (port: UInt32, interest: EventLoop.Interest)] = [:]
        var results: [UInt64: VsockConnectResult] = [:]
        var broken: [(queue: Int, error: QueueError)] = []
        var interrupts = 0
    }

    let memory: FakeMemory
    let receive: FakeRing
    let transmit: FakeRing
    let device: VsockDevice
    let asked = Asked()
    private var nextToken: UInt64 = 1
    private var posted = 0

    init(ringSize: UInt32 = 64, maximumConnections: Int = 1024, started: Bool = true) throws {
        memory = try FakeMemory(count: 16 << 20)
        receive = FakeRing(memory, at: FakeMemory.base, size: ringSize)
        transmit = FakeRing(memory, at: FakeMemory.base + 0x8000, size: ringSize)
        let asked = asked
        device = VsockDevice(
            guestCID: Self.cid, maximumConnections: maximumConnections,
            effects: .init(
                watch: { socket, port, interest in
                    asked.watches[socket] = interest.map { (port, $0) }
                    return true
                },
                finished: { asked.results[$0] = $1 },
                interrupt: { _ in asked.interrupts += 1 },
                broken: { asked.broken.append(($0, $1)) }))
        if started { try start() }
    }

    func start() throws {
        try device.receive.start(receive.geometry, memory: memory.guest, features: .all, position: receive.available)
        try device.transmit.start(transmit.geometry, memory: memory.guest, features: .all, position: transmit.available)
    }

    /// Gives the device `count` buffers of `size` bytes for packets.
    func post(_ count: Int, size: UInt32 = 4096) {
        for _ in 0..<count {
            let slot = UInt64(posted % Int(receive.size))
            posted += 1
            receive.add([(Self.receiveBuffers + slot * Self.stride, size, true)])
        }
    }

    /// The packets that the device has given, and as many buffers back to it.
    func take(postAgain: Bool = true) -> [(header: VsockHeader, payload: [UInt8])] {
        let used = receive.takeUsed()
        let packets = used.compactMap { entry -> (VsockHeader, [UInt8])? in
            guard entry.count >= 44 else { return nil }
            let address = memory.load(
                UInt64.self, at: receive.geometry.descriptorTable + 16 * UInt64(entry.head))
            return (VsockHeader(memory.pointer(address)), memory.read(Int(entry.count) - 44, at: address + 44))
        }
        if postAgain { post(used.count) }
        return packets
    }

    /// Sends bytes as they are, in a chain of `parts` buffers.
    func sendRaw(_ bytes: [UInt8], parts: [Int]? = nil) {
        let start = Self.transmitBuffers + UInt64(transmit.available % 32) * 2 * Self.stride
        memory.write(bytes, at: start)
        var offset = 0
        transmit.add(
            (parts ?? [bytes.count]).map { count in
                defer { offset += count }
                return (start + UInt64(offset), UInt32(count), false)
            })
        device.pump()
        _ = transmit.takeUsed()
    }

    func send(_ header: VsockHeader, _ payload: [UInt8] = []) {
        var bytes = [UInt8](repeating: 0, count: 44)
        bytes.withUnsafeMutableBytes { if let base = $0.baseAddress { header.write(to: base) } }
        sendRaw(bytes + payload, parts: payload.isEmpty ? [44] : [44, payload.count])
    }

    func header(_ operation: VsockHeader.Operation, _ stream: Stream, length: Int = 0) -> VsockHeader {
        var header = VsockHeader()
        header.sourceCID = Self.cid
        header.destinationCID = 2
        header.sourcePort = stream.guestPort
        header.destinationPort = stream.hostPort
        header.operation = operation.rawValue
        header.length = UInt32(length)
        header.bufferSize = stream.bufferSize
        header.forwarded = stream.forwarded
        return header
    }

    /// A stream as the guest sees it, and the host's end of its socket pair.
    final class Stream {
        let host: Int32
        private(set) var keep: SharedDescriptor?
        let token: UInt64
        let guestPort: UInt32
        var hostPort: UInt32 = 0
        var bufferSize: UInt32 = 64 * 1024
        var forwarded: UInt32 = 0

        init(_ host: SharedDescriptor, token: UInt64, guestPort: UInt32) {
            keep = host
            self.host = host.raw
            self.token = token
            self.guestPort = guestPort
        }

        func closeHost() { keep = nil }

        func write(_ bytes: [UInt8]) -> Int { Glibc.send(host, bytes, bytes.count, Int32(MSG_NOSIGNAL | MSG_DONTWAIT)) }

        /// What has come; nil at the end.
        func read(_ most: Int = 1 << 20) -> [UInt8]? {
            var bytes = [UInt8](repeating: 0, count: most)
            let count = recv(host, &bytes, most, Int32(MSG_DONTWAIT))
            return count == 0 ? nil : Array(bytes.prefix(max(0, count)))
        }
    }

    /// Has the host connect to a port; the REQUEST is not answered yet.
    func request(port: UInt32 = 1024, deadline: UInt64 = .max) throws -> Stream {
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
        defer { nextToken += 1 }
        let stream = Stream(ours, token: nextToken, guestPort: port)
        device.connect(port: port, socket: theirs, token: nextToken, deadline: deadline)
        return stream
    }

    /// An established stream.
    func connect(port: UInt32 = 1024, bufferSize: UInt32 = 64 * 1024) throws -> Stream {
        let stream = try request(port: port)
        let header = try #require(take().last).header
        #expect(header.operation == VsockHeader.Operation.request.rawValue)
        stream.hostPort = header.sourcePort
        stream.bufferSize = bufferSize
        send(self.header(.response, stream))
        #expect(asked.results[stream.token] == .connected)
        return stream
    }

    func data(_ stream: Stream, _ bytes: [UInt8]) { send(header(.data, stream, length: bytes.count), bytes) }

    /// Lets the device do all it has to do. Answers the number of steps; a device that never comes to rest is cut off.
    @discardableResult
    func settle(limit: Int = 10_000) -> Int {
        for step in 0..<limit {
            var items = asked.watches.map {
                pollfd(fd: $0.key, events: Int16(truncatingIfNeeded: $0.value.interest.rawValue), revents: 0)
            }
            let count = poll(&items, nfds_t(items.count), 0)
            if count <= 0, !device.hasMore { return step }
            if device.hasMore { device.pump() }
            for item in items where item.revents != 0 {
                guard let port = asked.watches[item.fd]?.port else { continue }
                device.socketReady(hostPort: port, .init(rawValue: UInt32(UInt16(bitPattern: item.revents))))
            }
        }
        Issue.record("the device does not come to rest")
        return limit
    }

    /// The operations of the packets that have come.
    func operations() -> [VsockHeader.Operation?] { take().map { .init(rawValue: $0.header.operation) } }
}
