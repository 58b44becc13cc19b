import Glibc
import LinuxSystem

/// The requests of the vhost-user protocol that are supported (QEMU, docs/interop/vhost-user.rst).
enum Request: UInt32 {
    case getFeatures = 1
    case setFeatures = 2
    case setOwner = 3
    case resetOwner = 4
    case setMemoryTable = 5
    case setVringNumber = 8
    case setVringAddress = 9
    case setVringBase = 10
    case getVringBase = 11
    case setVringKick = 12
    case setVringCall = 13
    case setVringError = 14
    case getProtocolFeatures = 15
    case setProtocolFeatures = 16
    case getQueueNumber = 17
    case setVringEnable = 18
    case getConfiguration = 24
    case setConfiguration = 25
}

/// VHOST_USER_F_PROTOCOL_FEATURES: the virtio feature bit of a back end that negotiates protocol features.
let protocolFeaturesBit: UInt64 = 1 << 30

/// The protocol features that are supported. VHOST_F_LOG_ALL, for migration, is neither offered nor requested.
struct ProtocolFeatures: OptionSet {
    let rawValue: UInt64
    static let multipleQueues = ProtocolFeatures(rawValue: 1 << 0)
    static let replyAcknowledge = ProtocolFeatures(rawValue: 1 << 3)
    static let configuration = ProtocolFeatures(rawValue: 1 << 9)
}

/// The header of every message: 12 bytes in the host's byte order, which is little-endian here.
struct MessageHeader {
    static let size = 12
    static let version: UInt32 = 1
    static let isReply: UInt32 = 1 << 2
    static let needsReply: UInt32 = 1 << 3
    /// The limit for payloads. The largest known ones are 8 regions of 32 bytes and a configuration space of 256 bytes.
    static let maximumPayload: UInt32 = 512

    var request: UInt32
    var flags: UInt32
    var length: UInt32

    var bytes: [UInt8] {
        var bytes: [UInt8] = []
        for number in [request, flags, length] { bytes.append(littleEndian: number) }
        return bytes
    }
}

/// A message and the descriptors that came with it.
struct Message {
    var header: MessageHeader
    var payload: [UInt8]
    var descriptors: [SharedDescriptor]

    /// The payload as numbers.
    ///
    /// - Throws: `.malformed` unless the payload has `count` bytes.
    func fields(count: Int) throws(SessionError) -> Fields {
        guard payload.count == count else { throw .malformed(header.request, "payload of \(payload.count) bytes") }
        return Fields(payload)
    }

    /// The payload of a message that carries one 64-bit number.
    func number() throws(SessionError) -> UInt64 {
        var fields = try fields(count: 8)
        return fields.u64()
    }
}

/// Reads the numbers of a payload in order. Beyond its end they are 0.
struct Fields {
    private let bytes: [UInt8]
    private var offset = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    private mutating func next<T: FixedWidthInteger & UnsignedInteger>(_: T.Type) -> T {
        let size = MemoryLayout<T>.size
        guard bytes.count - offset >= size else { return 0 }
        defer { offset += size }
        return bytes.withUnsafeBytes { T(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: T.self)) }
    }

    mutating func u32() -> UInt32 { next(UInt32.self) }
    mutating func u64() -> UInt64 { next(UInt64.self) }
}

/// Why a vhost-user session failed.
public enum SessionError: Error, Equatable, Sendable, CustomStringConvertible {
    case system(SystemError)
    /// A message of another protocol version, or with a payload beyond the limit.
    case badHeader(request: UInt32, flags: UInt32, length: UInt32)
    case malformed(UInt32, String)
    /// A request for a feature that this back end does not have.
    case unsupported(UInt32)
    /// The peer did not accept a message, or did not reply, in time.
    case timedOut(UInt32)
    /// The peer closed the connection instead of accepting a request or replying to it.
    case hungUp(UInt32)
    /// A reply to another request.
    case wrongReply(to: UInt32, request: UInt32)
    /// The back end acknowledged a request with a failure.
    case refused(UInt32, code: UInt64)
    /// The back end lacks something that the machine needs.
    case lacking(String)

    public var description: String {
        switch self {
        case .system(let error): "vhost-user: \(error)"
        case .badHeader(let request, let flags, let length):
            "vhost-user: message header with request \(request), flags \(flags), \(length) bytes"
        case .malformed(let request, let what):
            "vhost-user: \(Self.name(request)): \(what)"
        case .unsupported(let request): "vhost-user: request \(request) is not supported"
        case .timedOut(let request): "vhost-user: \(Self.name(request)): no reply in time"
        case .hungUp(let request): "vhost-user: \(Self.name(request)): the peer has closed the connection"
        case .wrongReply(let request, let other):
            "vhost-user: \(Self.name(request)): received a reply to \(Self.name(other))"
        case .refused(let request, let code): "vhost-user: \(Self.name(request)): refused with \(code)"
        case .lacking(let what): "vhost-user: the back end lacks \(what)"
        }
    }

    private static func name(_ request: UInt32) -> String {
        Request(rawValue: request).map { "\($0)" } ?? "request \(request)"
    }
}
