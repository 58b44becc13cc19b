import Glibc
import LinuxSystem
import Synchronization

@testable import Virtio

/// A device with two real rings for the transports: what is in a ring when it starts, or at `serve`, is echoed.
final class RingsDevice: BackendDevice, @unchecked Sendable {
    let features: UInt64 = 1 << 5
    let queueCount = 2
    let ownsConfiguration = true
    private let space = Mutex<[UInt8]>([1, 2, 3, 4, 5, 6])
    var configuration: [UInt8] { space.withLock { $0 } }
    let rings = [Virtqueue(maximumSize: 256), Virtqueue(maximumSize: 256)]

    func writeConfiguration(_ bytes: [UInt8], at offset: Int) {
        space.withLock {
            if offset + bytes.count <= $0.count { $0.replaceSubrange(offset..<offset + bytes.count, with: bytes) }
        }
    }

    func start(queue: Int, _ setup: QueueSetup) throws {
        try rings[queue].start(
            setup.geometry, memory: setup.memory, features: setup.features, position: setup.position)
        serve(queue)
    }

    func stop(queue: Int) -> UInt16 {
        rings[queue].stop()
        return rings[queue].position
    }

    func serve(_ queue: Int) {
        let ring = rings[queue]
        var bytes = [UInt8](repeating: 0, count: 512)
        for _ in 0..<64 {
            guard (try? ring.next()) == true else { return }
            let count = Vectors.copyOut(ring.readable, to: &bytes, count: bytes.count)
            ring.complete(written: UInt32(Vectors.copyIn(bytes, count: count, to: ring.writable)))
            _ = ring.needsInterrupt()
        }
    }
}
