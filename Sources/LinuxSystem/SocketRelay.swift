import CLinux
import Glibc

/// Carries the bytes of both directions between a server's or client's stream socket and a stream to the other side of the
/// machine's border: host or guest.
///
/// It holds at most one buffer for each direction, so who does not read holds up the sender. The end of one direction is passed
/// on while the other goes on.
public struct SocketRelay {
    public enum End: Sendable, Equatable {
        /// Both directions ended, or one of the two sockets was closed.
        case closed
        /// Somebody passed a descriptor (SCM_RIGHTS) over the local socket, which can't leave the machine. It was never received.
        case descriptorPassed
    }

    private static let bufferSize = 16 << 10

    /// A direction: what came from one side and has not gone to the other.
    private struct Direction {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: SocketRelay.bufferSize, alignment: 16)
        var waiting = 0..<0
        /// The sender has ended it.
        var sourceEnded = false
        /// The receiver takes no more.
        var sinkBroken = false
        /// The end is passed on.
        var isOver = false
    }

    private let sockets: [SharedDescriptor]
    /// By the number of their source: 0 is the local socket, 1 the machine's.
    private var directions = [Direction(), Direction()]
    /// Whose other end is closed for both directions.
    private var gone = [false, false]
    private let linger: Duration
    /// When a stream that lingers is closed.
    private var end: ContinuousClock.Instant?

    /// Carries until both directions have ended; blocks the thread. Both sockets become non-blocking. To end it early, shut both
    /// down.
    ///
    /// - Parameters:
    ///   - local: a connected stream socket of a server or client.
    ///   - machine: the stream that crosses the border: a vsock socket, or a Unix socket that stands for one.
    ///   - linger: how long what comes from the machine is still taken, and thrown away, when the local socket is closed. To
    ///     close the machine's with bytes unread resets it where it stands for a vsock socket, and what the guest has not read
    ///     yet would be lost.
    public static func carry(local: SharedDescriptor, machine: SharedDescriptor, linger: Duration = .zero) -> End {
        for socket in [local, machine] { try? socket.setNonBlocking(true) }
        var relay = SocketRelay(local: local, machine: machine, linger: linger)
        defer { for direction in relay.directions { direction.buffer.deallocate() } }
        return relay.run()
    }

    private init(local: SharedDescriptor, machine: SharedDescriptor, linger: Duration) {
        sockets = [local, machine]
        self.linger = linger
    }

    private mutating func run() -> End {
        var items = [pollfd(), pollfd()]
        while true {
            for side in 0...1 { settle(directionFrom: side) }
            guard let timeout = timeout() else { return .closed }
            for side in 0...1 {
                var events: Int32 = 0
                if !directions[side].sourceEnded, directions[side].waiting.isEmpty { events |= POLLIN }
                if !directions[1 - side].waiting.isEmpty { events |= POLLOUT }
                // A hang-up is reported again and again.
                items[side] = pollfd(
                    fd: events == 0 && gone[side] ? -1 : sockets[side].raw, events: Int16(events), revents: 0)
            }
            if poll(&items, 2, timeout) < 0 {
                if errno == EINTR { continue }
                return .closed
            }
            for side in 0...1 {
                let happened = Int32(items[side].revents)
                if happened & (POLLHUP | POLLERR | POLLNVAL) != 0 { gone[side] = true }
                if happened != 0, Int32(items[side].events) & POLLIN != 0, !receive(from: side) {
                    return .descriptorPassed
                }
            }
        }
    }

    /// For poll(2); nil when there is nothing left to do.
    private mutating func timeout() -> Int32? {
        if directions[0].isOver, directions[1].isOver || directions[1].sinkBroken && linger == .zero { return nil }
        // Nobody takes what comes from the local socket any more.
        if directions[1].isOver, gone[1] { return nil }
        guard directions[0].isOver, directions[1].sinkBroken else { return -1 }
        let now = ContinuousClock.now
        let end = end ?? now + linger
        self.end = end
        return now < end ? Int32((end - now) / .milliseconds(1)) + 1 : nil
    }

    /// Passes on what can be passed on of a direction, and its end.
    private mutating func settle(directionFrom side: Int) {
        send(from: side)
        if gone[1 - side], !directions[side].isOver { breakOff(side) }
        if directions[side].sourceEnded, directions[side].waiting.isEmpty, !directions[side].isOver {
            directions[side].isOver = true
            shutdown(sockets[1 - side].raw, Int32(SHUT_WR))
        }
    }

    /// Writes what waits, as far as the sink takes it.
    private mutating func send(from side: Int) {
        while !directions[side].waiting.isEmpty, let base = directions[side].buffer.baseAddress {
            let waiting = directions[side].waiting
            let count = Glibc.send(
                sockets[1 - side].raw, base + waiting.lowerBound, waiting.count,
                Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT))
            if count >= 0 {
                directions[side].waiting = (waiting.lowerBound + count)..<waiting.upperBound
            } else if errno == EINTR {
                continue
            } else {
                if errno != EAGAIN { breakOff(side) }
                return
            }
        }
    }

    /// The sink takes no more. A local sender learns of that as its writes fail; what comes from the machine is thrown away.
    private mutating func breakOff(_ side: Int) {
        directions[side].waiting = 0..<0
        if directions[side].sinkBroken { return }
        directions[side].sinkBroken = true
        if side == 0 {
            shutdown(sockets[side].raw, Int32(SHUT_RD))
            directions[side].sourceEnded = true
        }
    }

    /// - Returns: false when a descriptor came along.
    private mutating func receive(from side: Int) -> Bool {
        var part = iovec(iov_base: directions[side].buffer.baseAddress, iov_len: Self.bufferSize)
        // Without room for descriptors the kernel gives none to this process, and says so.
        var (count, flags) = (0, Int32(0))
        withUnsafeMutablePointer(to: &part) { part in
            var message = msghdr()
            message.msg_iov = part
            message.msg_iovlen = 1
            count = recvmsg(sockets[side].raw, &message, Int32(MSG_DONTWAIT))
            flags = message.msg_flags
        }
        if count < 0 {
            if errno != EAGAIN, errno != EINTR { (gone[side], directions[side].sourceEnded) = (true, true) }
            return true
        }
        if flags & Int32(MSG_CTRUNC) != 0 { return false }
        if count == 0 {
            directions[side].sourceEnded = true
            // A vsock socket shows only in this way that it was closed and not only half of it.
            if Glibc.send(sockets[side].raw, nil, 0, Int32(MSG_NOSIGNAL)) < 0 { gone[side] = true }
        }
        directions[side].waiting = directions[side].sinkBroken ? 0..<0 : 0..<count
        return true
    }
}
