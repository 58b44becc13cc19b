import CLinux
import LinuxSystem

/// Constants of the network device (virtio 1.2, 5.1).
enum NetProtocol {
    /// Feature bits (5.1.3).
    struct Features: OptionSet {
        let rawValue: UInt64
        static let checksum = Features(rawValue: 1 << 0)
        static let guestChecksum = Features(rawValue: 1 << 1)
        static let hardwareAddress = Features(rawValue: 1 << 5)
        static let guestTSO4 = Features(rawValue: 1 << 7)
        static let guestTSO6 = Features(rawValue: 1 << 8)
        static let guestECN = Features(rawValue: 1 << 9)
        static let hostTSO4 = Features(rawValue: 1 << 11)
        static let hostTSO6 = Features(rawValue: 1 << 12)
        static let hostECN = Features(rawValue: 1 << 13)
        static let mergeableBuffers = Features(rawValue: 1 << 15)
        static let status = Features(rawValue: 1 << 16)
        static let controlQueue = Features(rawValue: 1 << 17)
        static let multiqueue = Features(rawValue: 1 << 22)

        /// The features that the device and the tap support. VIRTIO_NET_F_MTU is not offered: a driver takes it as the largest
        /// MTU for good, but the MTU of a pod's interface may grow.
        static let all: Features = [
            .checksum, .guestChecksum, .hardwareAddress, .guestTSO4, .guestTSO6, .guestECN, .hostTSO4, .hostTSO6,
            .hostECN, .mergeableBuffers, .status,
        ]

        /// The offloads that the tap may leave to this driver (TUN_F_*).
        var offloads: UInt {
            guard contains(.guestChecksum) else { return 0 }
            var offloads = MARTLET_TUN_F_CSUM
            if contains(.guestTSO4) { offloads |= MARTLET_TUN_F_TSO4 }
            if contains(.guestTSO6) { offloads |= MARTLET_TUN_F_TSO6 }
            if contains(.guestECN), contains(.guestTSO4) || contains(.guestTSO6) { offloads |= MARTLET_TUN_F_TSO_ECN }
            return UInt(offloads)
        }
    }

    /// The length of the header before each frame (5.1.6). Its last two bytes are the frame's number of buffers.
    static let headerSize = Tap.headerSize
    static let bufferCountOffset = 10
    /// The longest frame with its header: 64 KiB of IP, the Ethernet header and a VLAN tag.
    static let longestFrame = headerSize + 18 + 65536
    /// Class and command of a request on the control queue (5.1.6.5). Only VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET is supported
    /// (5.1.6.5.5), which carries a count of 2 bytes.
    static let setPairs: [UInt8] = [4, 0]
    static let controlDone: UInt8 = 0, controlFailed: UInt8 = 1
    /// VIRTIO_NET_S_LINK_UP (5.1.4).
    static let linkUp: UInt16 = 1
}
