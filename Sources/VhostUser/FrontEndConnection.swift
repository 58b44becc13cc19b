import Glibc
import LinuxSystem

/// The machine's word with a device process: requests, and the answers that belong to them.
///
/// The back end is not trusted: an answer that is late, short, or to something else is an error. After an error the
/// connection is out of step, and of no more use.
struct FrontEndConnection {
    private var socket: MessageSocket
    /// Nanoseconds that one request may take.
    private let patience: UInt64
    /// The back end acknowledges every request: VHOST_USER_PROTOCOL_F_REPLY_ACK was agreed on.
    var acknowledges = false

    init(_ socket: SharedDescriptor, timeout: Duration) {
        self.socket = MessageSocket(socket, .frontEnd)
        let (seconds, attoseconds) = timeout.components
        let nanoseconds = Double(seconds) * 1e9 + Double(attoseconds) / 1e9
        patience = UInt64(clamping: Int64(min(max(nanoseconds, 0), 1e18)))
    }

    var descriptor: SharedDescriptor { socket.socket }

    /// Something to tell the back end, with descriptors that it gets copies of.
    struct Word {
        var request: Request
        var payload: [UInt8] = []
        var descriptors: [Int32] = []
    }

    /// Tells the back end some things in order, one after the other without a pause. Waits until all is done, where the
    /// back end says so.
    mutating func tell(_ words: [Word]) throws(SessionError) {
        let deadline = monotonicNanoseconds() + patience
        let flags = acknowledges ? MessageHeader.needsReply : 0
        for word in words {
            try socket.send(word.request.rawValue, flags: flags, word.payload, word.descriptors, deadline: deadline)
        }
        guard acknowledges else { return }
        for word in words {
            var answer = try reply(to: word.request, deadline).fields(count: 8)
            let code = answer.long()
            guard code == 0 else { throw .refused(word.request.rawValue, code: code) }
        }
    }

    /// Asks the back end for something.
    mutating func ask(_ request: Request, _ payload: [UInt8] = []) throws(SessionError) -> Message {
        let deadline = monotonicNanoseconds() + patience
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
                    throw .malformed(request.rawValue, "an answer with \(message.descriptors.count) descriptors")
                }
                return message
            case .end: throw .hungUp(request.rawValue)
            case .nothingYet: try socket.wait(POLLIN, request.rawValue, deadline: deadline)
            }
        }
    }
}
