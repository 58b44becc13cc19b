import CLinux
import FuzzSupport
import Glibc
import LinuxSystem

@testable import Virtio

/// The vsock device's state machine between a guest that sends any packets and real sockets of the host.
final class VsockTarget: FuzzTarget {
    private static let steps = 64
    private static let connections = 8
    private let scene: GuestScene
    private let device: VsockDevice
    private let asked = Asked()
    private var receive: RingWriter
    private var transmit: RingWriter
    private var hosts: [SharedDescriptor?] = []
    private var token: UInt64 = 0

    private final class Asked {
        var watched: [Int32: UInt32] = [:]
        var ports: [UInt32] = []
        var isBroken = false
    }

    init() throws {
        scene = try GuestScene()
        let asked = asked
        device = VsockDevice(
            guestCID: 7, maximumConnections: Self.connections,
            effects: .init(
                watch: { socket, port, interest in
                    asked.watched[socket] = interest == nil ? nil : port
                    return true
                },
                finished: { _, _ in }, interrupt: { _ in }, broken: { _, _ in asked.isBroken = true }))
        receive = RingWriter(scene, 0, order: 6)
        transmit = RingWriter(scene, 1, order: 6)
    }

    func run(_ input: inout Input) throws {
        scene.clear()
        receive = RingWriter(scene, 0, order: 6)
        transmit = RingWriter(scene, 1, order: 6)
        asked.isBroken = false
        try device.receive.start(receive.geometry, memory: scene.guest, features: .all, position: 0)
        try device.transmit.start(transmit.geometry, memory: scene.guest, features: .all, position: 0)
        hosts = []
        for _ in 0..<Self.steps where !input.isEmpty && !asked.isBroken { try step(&input) }
        require(device.connectionCount <= Self.connections, "\(device.connectionCount) connections")
        device.reset()
        device.receive.stop()
        device.transmit.stop()
        hosts = []
        for port in Array(device.connections.keys) { device.socketReady(hostPort: port, [.hangUp, .writable]) }
        require(device.connectionCount == 0, "\(device.connectionCount) connections are left")
        require(asked.watched.isEmpty, "\(asked.watched.count) sockets are still watched")
    }

    private func step(_ input: inout Input) throws {
        switch input.byte() % 16 {
        case 0, 1:
            let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
            for end in [ours, theirs] { try end.setNonBlocking(true) }
            token += 1
            hosts.append(ours)
            device.connect(port: UInt32(input.byte()), socket: theirs, token: token, deadline: UInt64(input.byte()))
        case 2, 3:
            for _ in 0...input.byte() % 8 {
                let slot = UInt16(input.byte())
                receive.setDescriptor(slot, scene.address(&input), UInt32(input.word() % 8192), 2, next: 0)
                receive.publish(slot % 64)
            }
            device.pump()
        case 4..<11: sendPacket(&input)
        case 11:
            guard let host = hosts.isEmpty ? nil : input.pick(hosts) else { return }
            let bytes = [UInt8](repeating: 1, count: Int(input.word()))
            _ = send(host.raw, bytes, bytes.count, Int32(MSG_NOSIGNAL | MSG_DONTWAIT))
        case 12:
            guard let host = hosts.isEmpty ? nil : input.pick(hosts) else { return }
            var bytes = [UInt8](repeating: 0, count: Int(input.word()) + 1)
            _ = recv(host.raw, &bytes, bytes.count, Int32(MSG_DONTWAIT))
        case 13: if !hosts.isEmpty { hosts[input.below(hosts.count)] = nil }
        case 14: device.expire(now: UInt64(input.byte()))
        default: break
        }
        turn()
    }

    /// What an event loop would do, once.
    private func turn() {
        if device.hasMore { device.pump() }
        var items = asked.watched.map { pollfd(fd: $0.key, events: Int16(POLLIN | POLLOUT), revents: 0) }
        guard !items.isEmpty, poll(&items, nfds_t(items.count), 0) > 0 else { return }
        for item in items where item.revents != 0 {
            guard let port = asked.watched[item.fd] else { continue }
            device.socketReady(hostPort: port, .init(rawValue: UInt32(UInt16(bitPattern: item.revents))))
        }
    }

    private func sendPacket(_ input: inout Input) {
        var header = VsockHeader()
        let choice = input.byte()
        header.sourceCID = choice == 0 ? input.number64() : 7
        header.destinationCID = choice == 1 ? input.number64() : 2
        header.operation = choice == 2 ? input.word() : UInt16(1 + input.byte() % 7)
        header.type = choice == 3 ? input.word() : VsockHeader.stream
        let live = device.connections.values.sorted { $0.hostPort < $1.hostPort }
        if choice > 4, !live.isEmpty {
            let connection = input.pick(live)
            (header.sourcePort, header.destinationPort) = (connection.guestPort, connection.hostPort)
        } else {
            (header.sourcePort, header.destinationPort) = (input.number(), input.number())
        }
        header.flags = UInt32(input.byte() & 3)
        header.bufferSize = UInt32(truncatingIfNeeded: input.number64())
        header.forwarded = UInt32(truncatingIfNeeded: input.number64())
        let isData = header.operation == VsockHeader.Operation.data.rawValue
        let payload = isData ? UInt32(input.word()) % 0x5000 : 0
        header.length = choice == 5 ? UInt32(truncatingIfNeeded: input.number64()) : payload
        var bytes = [UInt8](repeating: 0, count: VsockHeader.size)
        bytes.withUnsafeMutableBytes { if let base = $0.baseAddress { header.write(to: base) } }
        let slot = UInt16(input.byte() % 60)
        scene.write(bytes, at: GuestScene.data)
        transmit.setDescriptor(slot, GuestScene.data, 44, payload > 0 ? 1 : 0, next: slot + 1)
        if payload > 0 { transmit.setDescriptor(slot + 1, GuestScene.data + 64, payload, 0, next: 0) }
        transmit.publish(slot)
        device.pump()
    }
}
