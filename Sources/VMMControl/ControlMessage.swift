import Glibc

/// One packet on a control socket between the pod's server and a device process: always `size` bytes, little-endian.
///
///     0 magic u32 · 4 kind u32 · 8 sequence u64 · 16 number u64 · 24 port u32 · 28 flags u32 · 32 status u32
///     36 text length u32 · 40 text, 280 bytes
public struct ControlMessage: Equatable, Sendable {
    public static let size = 320
    public static let maximumText = 280
    /// Descriptors that may come with one packet.
    public static let maximumDescriptors = 8
    static let magic: UInt32 = 0x3143_564d  // "MVC1"

    public enum Kind: UInt32, Sendable {
        /// To the device. Descriptor: vhost-user socket. `number`: the guest's CID.
        case startVsock = 1
        /// To the device. Descriptors: vhost-user socket, procfs root. `text`: the tag.
        case startFiles
        /// To the device. Descriptor: the directory or file. `text`: its path in the device. `flags`: `readOnly`.
        case addShare
        /// To the device. `text`: its path in the device.
        case removeShare
        /// To the device. Descriptor: the stream. `port`: in the guest. `number`: nanoseconds until it is too late.
        case connect
        /// To the device. Descriptors: vhost-user socket, the disk's file. `text`: its serial number.
        /// `flags`: `readOnly`.
        case startBlock
        /// To the machine, first. Descriptors: /dev/kvm, the guest's memory file. `number`: bytes of memory. `port`:
        /// processors.
        case machine
        /// To the machine. `text`: a part of the kernel's command line, appended to what came before.
        case commandLine
        /// To the machine: a console. Descriptor: a socket that gets what the guest prints. `flags`: `serial`.
        case addConsole
        /// To the machine: a source of random numbers.
        case addEntropy
        /// To the machine: the vsock device, which it serves itself. `number`: the guest's CID.
        case addVsock
        /// To the machine: a file device. Descriptor: the vhost-user socket of its process. `text`: the tag.
        case addFiles
        /// To the machine: a disk. Descriptor: the file or block device. `flags`: `readOnly`. `text`: its serial number.
        case addBlock
        /// To the machine, last. Descriptors: kernel, initramfs. The reply's `number`: monotonic nanoseconds just before
        /// the guest's first instruction.
        case boot
        /// To the machine: press the power button.
        case powerButton
        /// To the machine, when it runs: a network interface at a spare place. Descriptors: the tap's queues. `number`: its
        /// hardware address, the first byte lowest.
        case addNetwork
        /// From the device: the answer to the request of the same sequence number. `text`: why it failed.
        case reply = 64
        /// From the device: it has stopped for good. `text`: the reason.
        case broken
        /// From the machine: it has stopped. `number`: an `End`. `text`: the reason, in words.
        case ended
    }

    /// How a machine stopped.
    public enum End: UInt64, Sendable {
        case poweredOff, reset, tripleFault, unhandled
    }

    public enum Status: UInt32, Sendable {
        case done, failed, refused, notReady, timedOut
    }

    public static let readOnly: UInt32 = 1
    public static let serial: UInt32 = 2

    public var kind: Kind
    public var sequence: UInt64
    public var number: UInt64 = 0
    public var port: UInt32 = 0
    public var flags: UInt32 = 0
    public var status = Status.done
    /// UTF-8; what does not fit is cut off.
    public var text = ""

    public init(_ kind: Kind, sequence: UInt64 = 0) {
        self.kind = kind
        self.sequence = sequence
    }

    /// Reads a packet; nil when it is none of this protocol.
    public init?(_ bytes: UnsafeRawBufferPointer) {
        guard bytes.count == Self.size else { return nil }
        func word(_ offset: Int) -> UInt32 {
            UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
        }
        func long(_ offset: Int) -> UInt64 {
            UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
        }
        let length = word(36)
        guard word(0) == Self.magic, let kind = Kind(rawValue: word(4)), let status = Status(rawValue: word(32)),
            length <= Self.maximumText
        else { return nil }
        self.kind = kind
        self.status = status
        sequence = long(8)
        number = long(16)
        port = word(24)
        flags = word(28)
        text = String(decoding: bytes[40..<40 + Int(length)], as: UTF8.self)
    }

    /// The packet.
    public var bytes: [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(Self.size)
        func put(_ value: some FixedWidthInteger) {
            withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
        }
        let text = Array(self.text.utf8.prefix(Self.maximumText))
        put(Self.magic)
        put(kind.rawValue)
        put(sequence)
        put(number)
        put(port)
        put(flags)
        put(status.rawValue)
        put(UInt32(text.count))
        bytes.append(contentsOf: text)
        bytes.append(contentsOf: repeatElement(0, count: Self.size - bytes.count))
        return bytes
    }
}
