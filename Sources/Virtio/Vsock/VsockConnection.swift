import Glibc
import LinuxSystem

/// One stream between a host socket and a port in the guest, with its credit in both directions.
///
/// All byte counts run free in 32 bits and wrap (virtio 1.2, 5.10.6.3).
final class VsockConnection {
    enum State {
        /// The guest has not answered the REQUEST yet.
        case connecting
        case established
        /// Over for the guest; what it sent still goes to a host socket that is slow.
        case draining
    }

    /// What waits to be sent to the guest.
    struct Outgoing: OptionSet {
        let rawValue: UInt8
        static let request = Outgoing(rawValue: 1)
        static let creditUpdate = Outgoing(rawValue: 2)
        static let creditRequest = Outgoing(rawValue: 4)
        static let shutdown = Outgoing(rawValue: 8)
        /// The host socket may have bytes.
        static let data = Outgoing(rawValue: 16)
    }

    /// The room a connection has for bytes that the host socket doesn't take: what the guest is told as its credit.
    static let bufferSize: UInt32 = 256 * 1024

    let hostPort: UInt32
    let guestPort: UInt32
    let token: UInt64
    let socket: SharedDescriptor
    var state = State.connecting
    /// When an attempt to connect has failed: monotonic nanoseconds.
    let deadline: UInt64

    // Guest to host.
    var received: UInt32 = 0
    var forwarded: UInt32 = 0
    /// The `forwarded` that the guest was last told.
    var told: UInt32 = 0
    var buffer = StreamBuffer(capacity: Int(VsockConnection.bufferSize))
    var guestSendsNoMore = false
    var hostToldEnd = false

    // Host to guest.
    var sent: UInt32 = 0
    var peerBufferSize: UInt32 = 0
    var peerForwarded: UInt32 = 0
    var guestReceivesNoMore = false
    var hostAtEnd = false

    var outgoing = Outgoing.request
    var requestSent = false
    /// In the device's list of connections with something to send.
    var queued = false
    /// What the event loop watches the socket for; nil: not watched.
    var watched: EventLoop.Interest?

    init(hostPort: UInt32, guestPort: UInt32, token: UInt64, socket: SharedDescriptor, deadline: UInt64) {
        self.hostPort = hostPort
        self.guestPort = guestPort
        self.token = token
        self.socket = socket
        self.deadline = deadline
    }

    /// Bytes that the guest still has room for. A guest that claims to have forwarded what was never sent has none.
    var peerFree: UInt32 {
        let inFlight = sent &- peerForwarded
        return inFlight >= peerBufferSize ? 0 : peerBufferSize - inFlight
    }

    /// Bytes that the guest may still send.
    var credit: UInt32 { Self.bufferSize - min(Self.bufferSize, received &- forwarded) }

    /// Whether the guest should hear of its credit now: it may be about to stop for want of it.
    var owesCredit: Bool {
        guard told != forwarded, !guestSendsNoMore else { return false }
        let guestSees = Self.bufferSize &- (received &- told)
        return guestSees < Self.bufferSize / 2 || guestSees > Self.bufferSize
    }

    /// Whether bytes can flow from the host socket to the guest at all, credit aside.
    var readsHost: Bool { state == .established && !hostAtEnd && !guestReceivesNoMore }

    /// What the socket has to be watched for now; nil: nothing, not even a hang-up, which would be told without end.
    var interest: EventLoop.Interest? {
        guard state != .connecting else { return nil }
        var interest: EventLoop.Interest = []
        if !buffer.isEmpty { interest.insert(.writable) }
        if readsHost {
            if peerFree > 0, !outgoing.contains(.data) { interest.insert(.readable) }
            if interest.isEmpty { return nil }
        }
        return interest
    }

    enum WriteResult {
        case wrote(Int)
        case full, gone
    }

    /// Writes to the host socket without waiting.
    func write(_ vectors: UnsafeMutablePointer<iovec>, _ count: Int) -> WriteResult {
        var message = msghdr()
        message.msg_iov = vectors
        message.msg_iovlen = count
        while true {
            let written = sendmsg(socket.raw, &message, Int32(MSG_NOSIGNAL | MSG_DONTWAIT))
            if written >= 0 { return .wrote(written) }
            if errno == EINTR { continue }
            return errno == EAGAIN || errno == ENOBUFS ? .full : .gone
        }
    }

    enum ReadResult {
        case read(Int)
        case empty, end, gone
    }

    /// Reads from the host socket without waiting.
    func read(_ vectors: UnsafeMutablePointer<iovec>, _ count: Int) -> ReadResult {
        var message = msghdr()
        message.msg_iov = vectors
        message.msg_iovlen = count
        while true {
            let bytes = recvmsg(socket.raw, &message, Int32(MSG_DONTWAIT))
            if bytes > 0 { return .read(bytes) }
            if bytes == 0 { return .end }
            if errno == EINTR { continue }
            return errno == EAGAIN ? .empty : .gone
        }
    }
}
