import Glibc

/// The header of every vsock packet, little-endian (virtio 1.2, 5.10.6).
struct VsockHeader: Equatable {
    static let size = 44
    /// The largest payload of one packet.
    static let maximumPayload: UInt32 = 64 * 1024

    var sourceCID: UInt64 = 0
    var destinationCID: UInt64 = 0
    var sourcePort: UInt32 = 0
    var destinationPort: UInt32 = 0
    var length: UInt32 = 0
    var type: UInt16 = VsockHeader.stream
    var operation: UInt16 = 0
    var flags: UInt32 = 0
    var bufferSize: UInt32 = 0
    var forwarded: UInt32 = 0

    static let stream: UInt16 = 1
    /// Flags of SHUTDOWN: the sender will not receive, or not send, any more.
    static let shutdownReceive: UInt32 = 1
    static let shutdownSend: UInt32 = 2

    enum Operation: UInt16 {
        case request = 1
        case response, reset, shutdown, data, creditUpdate, creditRequest
    }

    init() {}

    /// Reads a header from `bytes`, which has at least `size` bytes.
    init(_ bytes: UnsafeRawPointer) {
        sourceCID = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: 0, as: UInt64.self))
        destinationCID = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
        sourcePort = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 16, as: UInt32.self))
        destinationPort = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 20, as: UInt32.self))
        length = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 24, as: UInt32.self))
        type = UInt16(littleEndian: bytes.loadUnaligned(fromByteOffset: 28, as: UInt16.self))
        operation = UInt16(littleEndian: bytes.loadUnaligned(fromByteOffset: 30, as: UInt16.self))
        flags = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 32, as: UInt32.self))
        bufferSize = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 36, as: UInt32.self))
        forwarded = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 40, as: UInt32.self))
    }

    /// Writes the header to `bytes`, which has room for `size` bytes.
    func write(to bytes: UnsafeMutableRawPointer) {
        bytes.storeBytes(of: sourceCID.littleEndian, toByteOffset: 0, as: UInt64.self)
        bytes.storeBytes(of: destinationCID.littleEndian, toByteOffset: 8, as: UInt64.self)
        bytes.storeBytes(of: sourcePort.littleEndian, toByteOffset: 16, as: UInt32.self)
        bytes.storeBytes(of: destinationPort.littleEndian, toByteOffset: 20, as: UInt32.self)
        bytes.storeBytes(of: length.littleEndian, toByteOffset: 24, as: UInt32.self)
        bytes.storeBytes(of: type.littleEndian, toByteOffset: 28, as: UInt16.self)
        bytes.storeBytes(of: operation.littleEndian, toByteOffset: 30, as: UInt16.self)
        bytes.storeBytes(of: flags.littleEndian, toByteOffset: 32, as: UInt32.self)
        bytes.storeBytes(of: bufferSize.littleEndian, toByteOffset: 36, as: UInt32.self)
        bytes.storeBytes(of: forwarded.littleEndian, toByteOffset: 40, as: UInt32.self)
    }
}
