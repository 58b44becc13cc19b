import CLinux
import Glibc
import LinuxSystem

/// Takes messages from a stream socket as their bytes come, without ever waiting for the rest of one.
struct MessageSocket {
    let socket: SharedDescriptor
    private var bytes: [UInt8] = []
    private var descriptors: [SharedDescriptor] = []

    init(_ socket: SharedDescriptor) { self.socket = socket }

    enum Received {
        case message(Message)
        case nothingYet
        case end
    }

    mutating func receive() throws(SessionError) -> Received {
        while true {
            var wanted = MessageHeader.size
            if bytes.count >= MessageHeader.size {
                let header = try self.header()
                wanted += Int(header.length)
                if bytes.count == wanted {
                    let message = Message(
                        header: header, payload: Array(bytes[MessageHeader.size...]), descriptors: descriptors)
                    bytes.removeAll(keepingCapacity: true)
                    descriptors = []
                    return .message(message)
                }
            }
            guard let count = try fill(wanted - bytes.count) else { return .nothingYet }
            if count == 0 {
                guard bytes.isEmpty else { throw .malformed(0, "the peer closed in the middle of a message") }
                return .end
            }
        }
    }

    private func header() throws(SessionError) -> MessageHeader {
        var fields = Fields(bytes)
        let header = MessageHeader(request: fields.word(), flags: fields.word(), length: fields.word())
        guard header.flags & 3 == MessageHeader.version, header.flags & MessageHeader.isReply == 0,
            header.length <= MessageHeader.maximumPayload
        else { throw .badHeader(request: header.request, flags: header.flags, length: header.length) }
        return header
    }

    /// Receives at most `count` bytes; 0 at the end, nil when there are none now.
    private mutating func fill(_ count: Int) throws(SessionError) -> Int? {
        var numbers = [Int32](repeating: -1, count: 8)
        var descriptorCount: Int32 = 0
        let old = bytes.count
        bytes.append(contentsOf: repeatElement(0, count: count))
        let received = bytes.withUnsafeMutableBytes {
            martlet_receive_descriptors(
                socket.raw, $0.baseAddress.map { $0 + old }, count, &numbers, 8, &descriptorCount, Int32(MSG_DONTWAIT))
        }
        let failure = errno
        bytes.removeLast(count - max(0, received))
        descriptors += numbers.prefix(Int(descriptorCount)).map { SharedDescriptor(OwnedDescriptor(owning: $0)) }
        if descriptors.count > 8 { throw .malformed(0, "\(descriptors.count) descriptors with one message") }
        if received >= 0 { return received }
        if failure == EAGAIN { return nil }
        if failure == ECONNRESET { return 0 }
        throw .system(SystemError("receive", "vhost-user message", errno: .init(rawValue: failure)))
    }

    /// Answers a request.
    func reply(_ request: UInt32, _ payload: [UInt8]) throws(SessionError) {
        var bytes: [UInt8] = []
        for word in [request, MessageHeader.version | MessageHeader.isReply, UInt32(payload.count)] {
            withUnsafeBytes(of: word.littleEndian) { bytes.append(contentsOf: $0) }
        }
        bytes += payload
        // A peer that doesn't read its answers is no peer: not a byte is waited for.
        let sent = martlet_send_descriptors(socket.raw, bytes, bytes.count, nil, 0, Int32(MSG_DONTWAIT))
        guard sent == bytes.count else { throw .system(.last("send", "vhost-user reply to request \(request)")) }
    }
}
