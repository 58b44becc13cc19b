import CLinux
import FuzzSupport
import Glibc
import LinuxSystem

@testable import VhostUser
@testable import Virtio

/// Messages of vhost-user with descriptors: to a back end, and the replies of one to a front end.
final class VhostUserTarget: FuzzTarget {
    private static let steps = 48
    private let scene: GuestScene
    /// What may come with a message: eventfds, memory, and what is neither.
    private let descriptors: [SharedDescriptor]

    init() throws {
        scene = try GuestScene()
        let (reader, writer) = try SharedDescriptor.pipe()
        descriptors = [
            try .event(), try .event(), SharedDescriptor(try OwnedDescriptor.open("/dev/null", O_RDWR)), reader, writer,
            SharedDescriptor(try OwnedDescriptor.memory("small", size: 100)),
        ]
    }

    func run(_ input: inout Input) throws {
        scene.clear()
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
        if input.byte() > 220 { return try replies(&input, ours, theirs) }
        let session = Session(socket: theirs, device: RingsDevice()) { _ in }
        defer { session.close() }
        var rings = [RingWriter(scene, 0, order: 4), RingWriter(scene, 1, order: 4)]
        for _ in 0..<Self.steps where !input.isEmpty {
            if input.byte() < 16 {
                let index = input.below(2)
                rings[index].setDescriptor(
                    UInt16(input.byte()), scene.address(&input), UInt32(input.word()), UInt16(input.byte() & 7),
                    next: UInt16(input.byte()))
                rings[index].publish(UInt16(input.byte()))
                continue
            }
            send(&input, over: ours)
            guard try session.receive() else { return }
            var bytes = [UInt8](repeating: 0, count: 4096)
            while recv(ours.raw, &bytes, bytes.count, Int32(MSG_DONTWAIT)) > 0 {}
        }
    }

    private func send(_ input: inout Input, over socket: SharedDescriptor) {
        let request = UInt32(input.byte() % 28)
        var attached: [Int32] = []
        var payload: [UInt8]
        func ring() -> UInt32 { UInt32(input.byte() % 4) }
        switch Request(rawValue: request) {
        case .setMemoryTable:
            let count = UInt32(1 + input.byte() % 4)
            payload = wire(input.byte() > 240 ? input.number() : count) + wire(UInt32(0))
            for index in 0..<Int(count) {
                let region = GuestScene.regions[index % 3]
                let isReal = input.byte() > 24
                payload += wire(isReal ? region.address : input.number64())
                payload += wire(isReal ? region.count : input.number64())
                payload += wire(isReal ? 0x7f00_0000_0000 + region.address : input.number64())
                payload += wire(isReal ? region.offset : input.number64())
                attached.append(isReal ? scene.file.raw : input.pick(descriptors).raw)
            }
        case .setVringAddress:
            let index = ring()
            let geometry = RingWriter(scene, Int(index % 2), order: 4).geometry
            payload = wire(index) + wire(UInt32(input.byte() > 250 ? 1 : 0))
            for address in [geometry.descriptorTable, geometry.usedRing, geometry.availableRing] {
                payload += wire(input.byte() > 24 ? 0x7f00_0000_0000 + address : input.number64())
            }
            payload += wire(UInt64(0))
        case .setVringKick, .setVringCall, .setVringError:
            payload = wire(UInt64(input.byte() > 240 ? input.word() : UInt16(ring())))
            attached = [input.pick(descriptors).raw]
        case .setVringNumber: payload = wire(ring()) + wire(input.byte() > 24 ? UInt32(16) : input.number())
        case .setVringBase, .setVringEnable: payload = wire(ring()) + wire(UInt32(input.byte() % 4))
        case .getVringBase: payload = wire(ring()) + wire(UInt32(0))
        case .setFeatures: payload = wire(UInt64(input.byte()) << 26 | 1 << 32)
        case .setProtocolFeatures: payload = wire(UInt64(input.word()))
        case .getConfiguration:
            let size = UInt32(input.byte())
            payload = wire(UInt32(input.byte())) + wire(size) + wire(UInt32(0)) + input.take(Int(size))
        default: payload = input.take(Int(input.byte()))
        }
        let change = input.byte()
        if change < 6 { payload = input.take(Int(input.byte())) }
        if change == 6 { attached += Array(repeating: descriptors[0].raw, count: Int(input.byte() % 12)) }
        if change == 7 { attached = [] }
        let flags = change == 8 ? input.number() : UInt32(input.byte() & 1) << 3 | 1
        let length = change == 9 ? input.number() : UInt32(payload.count)
        let bytes = wire(request) + wire(flags) + wire(length) + payload
        _ = martlet_send_descriptors(
            socket.raw, bytes, bytes.count, attached, Int32(attached.count), Int32(MSG_DONTWAIT | MSG_NOSIGNAL))
    }

    /// What a front end reads of a back end that says anything. All of it is there before the first request.
    private func replies(_ input: inout Input, _ ours: SharedDescriptor, _ theirs: SharedDescriptor) throws {
        for request: UInt32 in [1, 15, 17, 24, 1, 11] {
            let flags: UInt32 = input.byte() > 240 ? input.number() : 5
            let payload =
                request == 24
                ? wire(UInt32(0)) + wire(UInt32(input.byte())) + wire(UInt32(0)) + input.take(Int(input.byte()))
                : input.byte() > 200 ? input.take(Int(input.byte())) : wire(input.number64() | 7 << 28)
            let bytes =
                wire(input.byte() > 240 ? input.number() : request) + wire(flags) + wire(UInt32(payload.count))
                + payload
            var attached: [Int32] = []
            if input.byte() > 250 { attached = [descriptors[0].raw] }
            _ = martlet_send_descriptors(
                ours.raw, bytes, bytes.count, attached, Int32(attached.count), Int32(MSG_DONTWAIT | MSG_NOSIGNAL))
        }
        shutdown(ours.raw, Int32(SHUT_WR))
        let region = SharedMemoryRegion(
            guestAddress: 0x1_0000, userAddress: 0x1_0000, size: 0x1_0000,
            file: SharedDescriptor(try scene.file.duplicate()), offset: 0)
        let frontEnd = try VhostUserFrontEnd(
            socket: theirs, memory: [region], queueCount: 2, configuration: .fromBackEnd(size: 6),
            timeout: .milliseconds(50))
        require(frontEnd.configuration.count == 6, "a configuration of \(frontEnd.configuration.count) bytes")
        _ = frontEnd.stop(queue: 0)
    }
}
