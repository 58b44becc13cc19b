import CLinux
import Glibc

/// A tap: a network interface whose other end is this process's (Documentation/networking/tuntap.rst).
///
/// It is gone when the last of its descriptors is closed, whoever holds it.
public struct Tap: Sendable {
    /// Bytes before each frame: the header of virtio-net (virtio 1.2, 5.1.6), with the number of buffers.
    public static let headerSize = 12
    /// The most queues that are of use here.
    public static let maximumQueues = 8

    public let name: String
    /// One for each queue. Non-blocking.
    public let queues: [SharedDescriptor]

    /// Makes one in the namespace of the calling thread; it is down.
    ///
    /// - Parameters:
    ///   - queues: pairs of queues, at most `maximumQueues`; more than one make a device of several.
    ///   - name: 15 bytes at most.
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
