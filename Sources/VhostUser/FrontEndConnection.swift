import Glibc
import LinuxSystem

/// The VMM's connection to a device process: it sends requests and matches replies to them.
///
/// The back end is not trusted: a reply that is late, short, or to another request is an error. After an error the connection
/// must not be used again, because requests and replies may not match.
struct FrontEndConnection {
    private var socket: MessageSocket
    /// The time for one request, nanoseconds.
    private let timeout: UInt64
    /// Whether the back end acknowledges every request (VHOST_USER_PROTOCOL_F_REPLY_ACK was negotiated).
    var acknowledges = false

    init(_ socket: SharedDescriptor, timeout: Duration) {
        self.socket = MessageSocket(socket, .frontEnd)
        let (seconds, attoseconds) = timeout.components
        let nanoseconds = Double(seconds) * 1e9 + Double(attoseconds) / 1e9
        self.timeout = UInt64(clamping: Int64(min(max(nanoseconds, 0), 1e18)))
    }

    var descriptor: SharedDescriptor { socket.socket }

    /// A request, with descriptors that the back end gets copies of.
    struct OutgoingRequest {
        var request: Request
        var payload: [UInt8] = []
        var descriptors: [Int32] = []
    }

    /// Sends requests that have no reply of their own, all at once. Waits for the acknowledgements, if they were negotiated.
    mutating func send(_ requests: [OutgoingRequest]) throws(SessionError) {
        let deadline = monotonicNanoseconds() + timeout
        let flags = acknowledges ? MessageHeader.needsReply : 0
        for request in requests {
            try socket.send(
                request.request.rawValue, flags: flags, request.payload, request.descriptors, deadline: deadline)
        }
        guard acknowledges else { return }
        for request in requests {
            var acknowledgement = try reply(to: request.request, deadline).fields(count: 8)
            let code = acknowledgement.u64()
            guard code == 0 else { throw .refused(request.request.rawValue, code: code) }
        }
    }

    /// Sends a request and waits for its reply.
    mutating func exchange(_ request: Request, _ payload: [UInt8] = []) throws(SessionError) -> Message {
        let deadline = monotonicNanoseconds() + timeout
        try socket.send(request.rawValue, flags: 0, payload, deadline: deadline)
        return try reply(to: request, deadline)
    }

    private mutating func reply(to request: Request, _ deadline: UInt64) throws(SessionError) -> Message {
        while true {
            switch try socket.receive() {
            case .message(let message):
                guard message.header.request == request.rawValue else {
                    throw .wrongReply(to: request.rawValue, request: message.header.request)
                }
                guard message.descriptors.isEmpty else {
                    throw .malformed(request.rawValue, "a reply with \(message.descriptors.count) descriptors")
                }
                return message
            case .end: throw .hungUp(request.rawValue)
            case .nothingYet: try socket.wait(POLLIN, request.rawValue, deadline: deadline)
            }
        }
    }
}
