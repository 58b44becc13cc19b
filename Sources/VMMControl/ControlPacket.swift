/// One packet on a control socket between the pod's server and one of its processes; all numbers are little-endian.
///
///     0 magic u32 · 4 version u16 · 6 kind u16 · 8 sequence u64
///     16 body length u32 · 20 descriptor count u16 · 22 flags u16 · 24 body
///
/// The first 16 bytes are the same in every version, so that each side can name the version that it refuses. A body that
/// does not fit in the packet is in a memory file, the packet's last descriptor.
struct ControlPacket<Descriptor: Sendable>: Sendable {
    /// What stands before the body.
    struct Header: Equatable, Sendable {
        var kind: UInt16
        var sequence: UInt64
        var bodyLength: Int
        var descriptorCount: Int
        var isBodyInFile: Bool
    }

    var kind: UInt16
    var sequence: UInt64
    var body: [UInt8]
    /// In the order in which the message names their roles.
    var descriptors: [Descriptor]
}

/// The sizes and numbers of the control protocol.
public enum ControlProtocol {
    /// Changes with every change of a message. Both ends of a control socket must have the same one.
    public static let version: UInt16 = 7
    /// Bytes of one packet.
    static let maximumPacket = 4096
    /// Bytes of one message's body.
    static let maximumBody = 1 << 20
    /// Bytes of the reason in a reply or an event; what is longer is cut off.
    static let maximumReason = 2048
    /// Descriptors of one packet, the body's file among them: the kernel's limit (SCM_MAX_FD).
    static let maximumDescriptors = 253

    static let magic: UInt32 = 0x4354_524d  // "MRTC"
    static let headerSize = 24
    static let bodyInFile: UInt16 = 1
}

extension ControlPacket.Header {
    /// The header's bytes.
    var bytes: [UInt8] {
        var bytes: [UInt8] = []
        bytes.append(littleEndian: ControlProtocol.magic)
        bytes.append(littleEndian: ControlProtocol.version)
        bytes.append(littleEndian: kind)
        bytes.append(littleEndian: sequence)
        bytes.append(littleEndian: UInt32(clamping: bodyLength))
        bytes.append(littleEndian: UInt16(clamping: descriptorCount))
        bytes.append(littleEndian: isBodyInFile ? ControlProtocol.bodyInFile : 0)
        return bytes
    }

    /// Reads the header of a packet that came with `descriptors` descriptors.
    ///
    /// - Throws: `ControlError.malformed`, `.version` or `.refused`.
    init(_ packet: UnsafeRawBufferPointer, descriptors: Int) throws(ControlError) {
        func number<Number: FixedWidthInteger>(_ offset: Int, _: Number.Type) -> Number {
            Number(littleEndian: packet.loadUnaligned(fromByteOffset: offset, as: Number.self))
        }
        guard packet.count >= 16, number(0, UInt32.self) == ControlProtocol.magic else {
            throw .malformed(bytes: packet.count)
        }
        let (version, kind, sequence) = (number(4, UInt16.self), number(6, UInt16.self), number(8, UInt64.self))
        guard version == ControlProtocol.version else { throw .version(version, sequence: sequence) }
        guard packet.count >= ControlProtocol.headerSize else { throw .malformed(bytes: packet.count) }
        self.kind = kind
        self.sequence = sequence
        let (length, flags) = (number(16, UInt32.self), number(22, UInt16.self))
        descriptorCount = Int(number(20, UInt16.self))
        isBodyInFile = flags == ControlProtocol.bodyInFile
        func refused(_ reason: String) -> ControlError { .refused(sequence: sequence, "message \(kind): \(reason)") }
        guard flags & ~ControlProtocol.bodyInFile == 0 else { throw refused("flags \(flags) are unknown") }
        guard length <= UInt32(ControlProtocol.maximumBody) else { throw refused("a body of \(length) bytes") }
        bodyLength = Int(length)
        let inline = packet.count - ControlProtocol.headerSize
        guard inline == (isBodyInFile ? 0 : bodyLength) else {
            throw refused("a body of \(length) bytes, \(inline) of them in the packet")
        }
        guard descriptorCount == descriptors, !isBodyInFile || descriptors > 0 else {
            throw refused("\(descriptorCount) descriptors announced, \(descriptors) came")
        }
    }
}
