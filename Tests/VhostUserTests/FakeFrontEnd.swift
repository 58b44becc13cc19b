import CLinux
import Glibc
import LinuxSystem
import Testing

@testable import VhostUser
@testable import Virtio

/// The machine's side of a vhost-user socket: real memory, real eventfds, and free to send anything.
final class FakeFrontEnd {
    let socket: SharedDescriptor
    let memory: FakeMemory

    init(_ socket: SharedDescriptor, memory: FakeMemory) {
        self.socket = socket
        self.memory = memory
        var limit = timeval(tv_sec: 5, tv_usec: 0)
        setsockopt(socket.raw, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    }

    static func bytes(_ values: any FixedWidthInteger...) -> [UInt8] {
        values.flatMap { value -> [UInt8] in
            func raw(_ value: some FixedWidthInteger) -> [UInt8] {
                withUnsafeBytes(of: value.littleEndian) { Array($0) }
            }
            return raw(value)
        }
    }

    static func message(_ request: UInt32, _ payload: [UInt8] = [], flags: UInt32 = 1) -> [UInt8] {
        bytes(request, flags, UInt32(payload.count)) + payload
    }

    func sendRaw(_ bytes: [UInt8], _ descriptors: [Int32] = []) throws {
        let sent = martlet_send_descriptors(socket.raw, bytes, bytes.count, descriptors, Int32(descriptors.count), 0)
        try check("send", "", sent)
    }

    func send(_ request: Request, _ payload: [UInt8] = [], _ descriptors: [Int32] = [], flags: UInt32 = 1) throws {
        try sendRaw(Self.message(request.rawValue, payload, flags: flags), descriptors)
    }

    /// The payload of the next reply; nil when the back end has hung up.
    func reply(to request: Request) throws -> [UInt8]? {
        guard let header = try receive(12) else { return nil }
        var fields = Fields(header)
        #expect(fields.u32() == request.rawValue)
        #expect(fields.u32() == 5)
        return try receive(Int(fields.u32()))
    }

    private func receive(_ count: Int) throws -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: count)
        let received = recv(socket.raw, &bytes, count, Int32(MSG_WAITALL))
        if received == 0, count > 0 { return nil }
        try check("recv", "", received)
        return bytes
    }

    func ask(_ request: Request, _ payload: [UInt8] = []) throws -> UInt64 {
        try send(request, payload)
        var fields = Fields(try #require(try reply(to: request)))
        return fields.u64()
    }

    /// What QEMU sends at start and at DRIVER_OK, for `rings`, each with a kick and a call eventfd.
    func bringUp(_ rings: [FakeRing], _ kicks: [Int32], _ calls: [Int32], protocolFeatures: UInt64 = 0x208) throws {
        let features = try ask(.getFeatures)
        #expect(features & (1 << 30 | 1 << 32 | 1 << 29 | 1 << 28) == 1 << 30 | 1 << 32 | 1 << 29 | 1 << 28)
        #expect(try ask(.getProtocolFeatures) & protocolFeatures == protocolFeatures)
        try send(.setProtocolFeatures, Self.bytes(protocolFeatures))
        try send(.setOwner)
        try send(.setFeatures, Self.bytes(features))
        try sendMemory()
        for (index, ring) in rings.enumerated() { try configure(UInt32(index), ring, kicks[index]) }
        for index in rings.indices { try send(.setVringEnable, Self.bytes(UInt32(index), 1 as UInt32)) }
        for (index, call) in calls.enumerated() { try send(.setVringCall, Self.bytes(UInt64(index)), [call]) }
    }

    func sendMemory() throws {
        let user: UInt64 = 0x7f00_0000_0000
        try send(
            .setMemoryTable,
            Self.bytes(1 as UInt32, 0 as UInt32, FakeMemory.base, UInt64(memory.count), user, 0 as UInt64),
            [memory.file.raw])
    }

    func configure(_ index: UInt32, _ ring: FakeRing, _ kick: Int32, base: UInt32 = 0) throws {
        let offset = 0x7f00_0000_0000 &- FakeMemory.base
        try send(.setVringNumber, Self.bytes(index, ring.geometry.size))
        try send(.setVringBase, Self.bytes(index, base))
        try send(
            .setVringAddress,
            Self.bytes(
                index, 0 as UInt32, ring.geometry.descriptorTable &+ offset, ring.geometry.usedRing &+ offset,
                ring.geometry.availableRing &+ offset, 0 as UInt64))
        try send(.setVringKick, Self.bytes(UInt64(index)), [kick])
    }
}

/// Waits until a descriptor is readable; false after `milliseconds`.
func isReadable(_ descriptor: Int32, _ milliseconds: Int32 = 2000) -> Bool {
    var item = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    return poll(&item, 1, milliseconds) == 1 && item.revents & Int16(POLLIN) != 0
}

/// An eventfd of the test's own.
final class TestEvent {
    private let event: EventDescriptor
    init() throws { event = try EventDescriptor() }
    var raw: Int32 { event.descriptor.raw }
    func signal() { event.signal() }
    @discardableResult func drain() -> Bool { event.drain() }
}
