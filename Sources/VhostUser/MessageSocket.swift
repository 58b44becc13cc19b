import CLinux
import Glibc
import LinuxSystem

/// Sends and receives messages on a stream socket. Receiving never blocks for the rest of a message.
struct MessageSocket {
    /// The end of the connection: the VMM's, which sends requests, or the device process's, which replies.
    enum Side {
        case frontEnd, backEnd
    }

    let socket: SharedDescriptor
    private let side: Side
    private var bytes: [UInt8] = []
    private var descriptors: [SharedDescriptor] = []

    init(_ socket: SharedDescriptor, _ side: Side) {
        self.socket = socket
        self.side = side
    }

    enum Received {
        case message(Message)
        case nothingYet
        case end
    }

    /// The next message, as far as its bytes have arrived.
    mutating func receive() throws(SessionError) -> Received {
        while true {
            var length = MessageHeader.size
            if bytes.count >= MessageHeader.size {
                let header = try self.header()
                length += Int(header.length)
                if bytes.count == length {
                    let message = Message(
                        header: header, payload: Array(bytes[MessageHeader.size...]), descriptors: descriptors)
                    bytes.removeAll(keepingCapacity: true)
                    descriptors = []
                    return .message(message)
                }
            }
            guard let count = try fill(length - bytes.count) else { return .nothingYet }
            if count == 0 {
                guard bytes.isEmpty else { throw .malformed(0, "the peer closed in the middle of a message") }
                return .end
            }
        }
    }

    private func header() throws(SessionError) -> MessageHeader {
        var fields = Fields(bytes)
        let header = MessageHeader(request: fields.u32(), flags: fields.u32(), length: fields.u32())
        let direction = side == .frontEnd ? MessageHeader.isReply : 0
        guard header.flags & 3 == MessageHeader.version, header.flags & MessageHeader.isReply == direction,
            header.length <= MessageHeader.maximumPayload
        else { throw .badHeader(request: header.request, flags: header.flags, length: header.length) }
        return header
    }

    /// Receives at most `count` bytes.
    ///
    /// - Returns: the number of bytes; 0 at the end of the connection, nil when there are none now.
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

    /// Replies to a request. Does not wait for room in the socket: a peer that does not read its replies is an error.
    func reply(_ request: UInt32, _ payload: [UInt8]) throws(SessionError) {
        try send(request, flags: MessageHeader.isReply, payload, deadline: 0)
    }

    /// Sends a message with copies of `descriptors`. Waits for room in the socket until `deadline` (monotonic nanoseconds).
    func send(
        _ request: UInt32, flags: UInt32, _ payload: [UInt8], _ descriptors: [Int32] = [], deadline: UInt64
    ) throws(SessionError) {
        let header = MessageHeader(
            request: request, flags: MessageHeader.version | flags, length: UInt32(payload.count))
        let bytes = header.bytes + payload
        var done = 0
        while done < bytes.count {
            // The descriptors go with the first byte.
            let count = Int32(done == 0 ? descriptors.count : 0)
            let sent = bytes.withUnsafeBytes {
                martlet_send_descriptors(
                    socket.raw, $0.baseAddress.map { $0 + done }, $0.count - done, descriptors, count,
                    Int32(MSG_DONTWAIT))
            }
            let failure = errno
            if sent >= 0 {
                done += sent
                continue
            }
            switch failure {
            case EAGAIN: try wait(POLLOUT, request, deadline: deadline)
            case EPIPE, ECONNRESET: throw .hungUp(request)
            default:
                throw .system(SystemError("send", "vhost-user message \(request)", errno: .init(rawValue: failure)))
            }
        }
    }

    /// Waits until the socket is ready for `event` or closed.
    func wait(_ event: Int32, _ request: UInt32, deadline: UInt64) throws(SessionError) {
        var item = pollfd(fd: socket.raw, events: Int16(event), revents: 0)
        while true {
            let now = monotonicNanoseconds()
            guard now < deadline else { throw .timedOut(request) }
            let count = poll(&item, 1, Int32(clamping: (deadline - now) / 1_000_000 + 1))
            if count > 0 { return }
            guard count == 0 || errno == EINTR else { throw .system(.last("poll", "vhost-user socket")) }
        }
    }
}
