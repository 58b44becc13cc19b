import Glibc
import LinuxSystem

/// A stream between a host socket and a port of the guest, with the credit of both directions.
///
/// All byte counts are free-running 32-bit numbers that wrap (virtio 1.2, 5.10.6.3).
final class VsockConnection {
    enum State {
        /// The guest has not answered the REQUEST yet.
        case connecting
        case established
        /// Closed for the guest. Its last bytes still go to a slow host socket.
        case draining
    }

    /// The packets that wait to be sent to the guest.
    struct Outgoing: OptionSet {
        let rawValue: UInt8
        static let request = Outgoing(rawValue: 1)
        static let creditUpdate = Outgoing(rawValue: 2)
        static let creditRequest = Outgoing(rawValue: 4)
        static let shutdown = Outgoing(rawValue: 8)
        /// The host socket may have bytes.
        static let data = Outgoing(rawValue: 16)
    }

    /// The size of the buffer for bytes that the host socket does not take at once, advertised to the guest as `buf_alloc`.
    static let bufferSize: UInt32 = 256 * 1024

    let hostPort: UInt32
    let guestPort: UInt32
    let token: UInt64
    let socket: SharedDescriptor
    var state = State.connecting
    /// When an attempt to connect times out: monotonic nanoseconds.
    let deadline: UInt64

    // Guest to host.
    var received: UInt32 = 0
    var forwarded: UInt32 = 0
    /// The value of `forwarded` in the last packet to the guest.
    var advertisedForwarded: UInt32 = 0
    var buffer = StreamBuffer(capacity: Int(VsockConnection.bufferSize))
    var guestSendsNoMore = false
    var hostIsShutDown = false

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

    /// Bytes that the guest has room for. It is 0 when the guest claims to have forwarded more than was sent.
    var peerFree: UInt32 {
        let inFlight = sent &- peerForwarded
        return inFlight >= peerBufferSize ? 0 : peerBufferSize - inFlight
    }

    /// Bytes that the guest may still send.
    var credit: UInt32 { Self.bufferSize - min(Self.bufferSize, received &- forwarded) }

    /// Whether to send a credit update now, because the guest may soon stop for lack of credit.
    var needsCreditUpdate: Bool {
        guard advertisedForwarded != forwarded, !guestSendsNoMore else { return false }
        let guestSees = Self.bufferSize &- (received &- advertisedForwarded)
        return guestSees < Self.bufferSize / 2 || guestSees > Self.bufferSize
    }

    /// Whether bytes can go from the host socket to the guest, apart from credit.
    var canReadHost: Bool { state == .established && !hostAtEnd && !guestReceivesNoMore }

    /// The events to watch the socket for; nil: none, since even a hang-up would be reported again and again.
    var interest: EventLoop.Interest? {
        guard state != .connecting else { return nil }
        var interest: EventLoop.Interest = []
        if !buffer.isEmpty { interest.insert(.writable) }
        if canReadHost {
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
