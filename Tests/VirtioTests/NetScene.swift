import CLinux
import Glibc
import LinuxSystem

@testable import Virtio

/// A network interface with its driver. Each queue of its tap is a socket that keeps frames apart, whose other end the test has.
final class NetScene {
    static let mergeable: UInt64 = 1 << 15
    static let header = 12
    static let payload = FakeMemory.base + 0x10_0000

    let memory: FakeMemory
    let receive: FakeQueue
    let transmit: FakeQueue
    let backend: NetBackend
    let wires: [SharedDescriptor]
    var wire: SharedDescriptor { wires[0] }
    let broken: Promise<String>

    init(features: UInt64 = NetScene.mergeable, size: UInt32 = 64, pairs: Int = 1) throws {
        var (tap, wires): ([SharedDescriptor], [SharedDescriptor]) = ([], [])
        for _ in 0..<pairs {
            let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_SEQPACKET)
            for end in [ours, theirs] { try end.setNonBlocking(true) }
            var room: Int32 = 4 << 20
            setsockopt(theirs.raw, SOL_SOCKET, 32, &room, 4)  // SO_SNDBUFFORCE
            tap.append(ours)
            wires.append(theirs)
        }
        let broken = try Promise<String>()
        (self.wires, self.broken) = (wires, broken)
        memory = try FakeMemory()
        backend = try NetBackend(tap: tap, hardwareAddress: [2, 0, 0, 0, 0, 7]) { broken.settle($0) }
        receive = try FakeQueue(0, memory, size: size, features: features)
        transmit = try FakeQueue(1, memory, size: size, features: features)
    }

    func start() throws {
        try backend.start(queue: 0, receive.setup)
        try backend.start(queue: 1, transmit.setup)
    }

    func stop() -> [UInt16] { [backend.stop(queue: 0), backend.stop(queue: 1)] }

    /// A frame arrives at the tap, after an empty header.
    func arrive(_ frame: [UInt8], at tap: Int = 0) -> Bool {
        let bytes = [UInt8](repeating: 0, count: Self.header) + frame
        return send(wires[tap].raw, bytes, bytes.count, 0) == bytes.count
    }

    /// The next frame that the tap sent, with its header.
    func sent(milliseconds: Int32 = 2000) -> [UInt8]? {
        var item = pollfd(fd: wire.raw, events: Int16(POLLIN), revents: 0)
        guard poll(&item, 1, milliseconds) == 1 else { return nil }
        var bytes = [UInt8](repeating: 0, count: 70_000)
        let count = recv(wire.raw, &bytes, bytes.count, 0)
        return count < 0 ? nil : Array(bytes.prefix(count))
    }

    static func frame(_ count: Int) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ 1) } }
}
