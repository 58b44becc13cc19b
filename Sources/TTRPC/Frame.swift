import NIOCore

/// The ten bytes before each message: length (u32), stream (u32), type (u8), flags (u8), big-endian
/// (github.com/containerd/ttrpc, PROTOCOL.md).
struct FrameHeader: Equatable {
    static let size = 10
    /// The most bytes that a message may have.
    static let longest = 4 << 20

    /// The length of the message, bytes. In a received header it is not checked yet.
    var length: UInt32
    /// Odd, since only clients start streams.
    var stream: UInt32
    /// A `FrameType`, or a type of a later protocol.
    var type: UInt8
    var flags: FrameFlags
}

enum FrameType: UInt8 {
    case request = 1
    case response = 2
    case data = 3
}

struct FrameFlags: OptionSet, Equatable {
    let rawValue: UInt8
    /// The sender sends nothing more on this stream.
    static let remoteClosed = FrameFlags(rawValue: 1)
    /// The sender of this request is going to send data.
    static let remoteOpen = FrameFlags(rawValue: 2)
    /// The frame carries no message. (Without the flag, an empty payload is an empty message.)
    static let noData = FrameFlags(rawValue: 4)
}

struct Frame: Equatable {
    var header: FrameHeader
    var payload: [UInt8]
}

extension ByteBuffer {
    /// Appends a frame. The caller keeps `payload` within `FrameHeader.longest`.
    mutating func writeFrame(_ type: FrameType, stream: UInt32, flags: FrameFlags = [], _ payload: [UInt8]) {
        reserveCapacity(minimumWritableBytes: FrameHeader.size + payload.count)
        writeInteger(UInt32(truncatingIfNeeded: payload.count))
        writeInteger(stream)
        writeInteger(type.rawValue)
        writeInteger(flags.rawValue)
        writeBytes(payload)
    }
}

/// Splits a connection's bytes into frames.
struct FrameParser {
    enum Event: Equatable {
        case frame(Frame)
        /// A message beyond the limit. Its bytes were dropped.
        case oversized(FrameHeader)
    }

    private var buffer = ByteBuffer()
    private var dropping: (header: FrameHeader, left: Int)?

    mutating func append(_ bytes: ByteBuffer) {
        if buffer.readableBytes == 0 {
            buffer = bytes
        } else {
            buffer.writeImmutableBuffer(bytes)
        }
    }

    /// The next frame, or nil until more bytes come.
    mutating func next() -> Event? {
        if dropping != nil { return drop() }
        guard let header = peekHeader() else { return nil }
        if header.length > FrameHeader.longest {
            buffer.moveReaderIndex(forwardBy: FrameHeader.size)
            dropping = (header, Int(header.length))
            return drop()
        }
        let length = Int(header.length)
        guard buffer.readableBytes >= FrameHeader.size + length else {
            // Release the memory of frames that were read.
            if buffer.readerIndex > 1 << 16 { buffer.discardReadBytes() }
            return nil
        }
        buffer.moveReaderIndex(forwardBy: FrameHeader.size)
        return .frame(Frame(header: header, payload: buffer.readBytes(length: length) ?? []))
    }

    private mutating func drop() -> Event? {
        guard let (header, left) = dropping else { return nil }
        let here = min(left, buffer.readableBytes)
        buffer.moveReaderIndex(forwardBy: here)
        dropping = here < left ? (header, left - here) : nil
        return here < left ? nil : .oversized(header)
    }

    private func peekHeader() -> FrameHeader? {
        let start = buffer.readerIndex
        guard
            let length = buffer.getInteger(at: start, as: UInt32.self),
            let stream = buffer.getInteger(at: start + 4, as: UInt32.self),
            let type = buffer.getInteger(at: start + 8, as: UInt8.self),
            let flags = buffer.getInteger(at: start + 9, as: UInt8.self)
        else { return nil }
        return FrameHeader(length: length, stream: stream, type: type, flags: FrameFlags(rawValue: flags))
    }
}
