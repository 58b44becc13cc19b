import CLinux
import Glibc

/// A tap: a network interface whose frames a process reads and writes (Documentation/networking/tuntap.rst).
///
/// It is gone when the last of its descriptors is closed, in whatever process.
public struct Tap: Sendable {
    /// The length of the header before each frame, bytes: the virtio-net header (virtio 1.2, 5.1.6) with the number of buffers.
    public static let headerSize = 12
    /// The largest number of queues that is supported.
    public static let maximumQueues = 8

    public let name: String
    /// One descriptor for each queue, non-blocking.
    public let queues: [SharedDescriptor]

    /// Creates a tap in the network namespace of the calling thread. It is down.
    ///
    /// - Parameters:
    ///   - name: at most 15 bytes.
    ///   - count: the number of queue pairs, at most `maximumQueues`.
    public init(_ name: String, queues count: Int) throws(SystemError) {
        self.name = name
        var queues: [SharedDescriptor] = []
        let offloads = MARTLET_TUN_F_CSUM | MARTLET_TUN_F_TSO4 | MARTLET_TUN_F_TSO6 | MARTLET_TUN_F_TSO_ECN
        for _ in 0..<max(1, count) {
            let file = try OwnedDescriptor.open("/dev/net/tun", O_RDWR | O_NONBLOCK)
            let step = martlet_make_tap(
                file.raw, name, count > 1 ? 1 : 0, Int32(Self.headerSize), UInt(offloads))
            if let step { throw SystemError.last(String(cString: step), "tap \(name)") }
            queues.append(SharedDescriptor(file))
        }
        self.queues = queues
    }
}
