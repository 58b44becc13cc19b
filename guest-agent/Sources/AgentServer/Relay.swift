import CLinux
import Glibc
import LinuxSystem

/// Moves bytes between a process and its stream on a thread of its own, with blocking calls: who is slow stalls this
/// stream and no other, and what was read is written before anything more is read.
enum Relay {
    static let bufferSize = 64 << 10
    /// How long a stream stays open for other processes that have it open and write nothing, when its process has ended. Milliseconds.
    static let idle: Int32 = 1000

    /// Writes all of it; false when the other side takes no more.
    static func writeAll(_ bytes: UnsafeRawBufferPointer, to descriptor: Int32) -> Bool {
        var left = bytes
        while !left.isEmpty {
            let count = write(descriptor, left.baseAddress, left.count)
            if count < 0 {
                if Glibc.errno == EINTR { continue }
                guard Glibc.errno == EAGAIN else { return false }
                var item = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                poll(&item, 1, -1)
                continue
            }
            left = UnsafeRawBufferPointer(rebasing: left.dropFirst(count))
        }
        return true
    }

    static let readable = Int16(POLLIN)
    static let writable = Int16(POLLOUT)
    static let broken = Int16(POLLERR) | Int16(POLLNVAL)
    static let hungUp = Int16(POLLHUP)
    /// POLLRDHUP: the peer sends no more.
    static let halfClosed = Int16(0x2000)
}

/// Why a relay has stopped.
enum RelayEnd {
    /// The stream has ended; `hostIsGone`: since the host takes no more.
    case ended(hostIsGone: Bool)
    /// It was asked to let go of its connection, and has.
    case detached
}

/// From a process to the host: its stdout or stderr, or its terminal.
struct OutputRelay {
    let source: SharedDescriptor
    /// Signalled when the process has ended.
    let processEnded: SharedDescriptor

    /// Relays until the stream ends or is to be detached. Everything that was read is with the host then.
    ///
    /// - Parameters:
    ///   - connection: nil: what the process writes is dropped.
    ///   - detach: signalled when the relay is to let go.
    func run(to connection: SharedDescriptor?, detach: SharedDescriptor) -> RelayEnd {
        let end = pump(to: connection, detach)
        if let connection { shutdown(connection.raw, Int32(SHUT_WR)) }
        return end
    }

    private func pump(to connection: SharedDescriptor?, _ detach: SharedDescriptor) -> RelayEnd {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Relay.bufferSize, alignment: 16)
        defer { buffer.deallocate() }
        var ended = false
        var halfClosed = false
        var items = [pollfd](repeating: pollfd(), count: 4)
        while true {
            items[0] = pollfd(fd: source.raw, events: Relay.readable, revents: 0)
            items[1] = pollfd(fd: connection?.raw ?? -1, events: halfClosed ? 0 : Relay.halfClosed, revents: 0)
            items[2] = pollfd(fd: ended ? -1 : processEnded.raw, events: Relay.readable, revents: 0)
            items[3] = pollfd(fd: detach.raw, events: Relay.readable, revents: 0)
            let count = poll(&items, 4, ended || halfClosed ? Relay.idle : -1)
            if count < 0 { continue }
            if items[3].revents != 0 {
                return .detached
            } else if items[0].revents != 0 {
                let length = read(source.raw, buffer.baseAddress, buffer.count)
                if length < 0, Glibc.errno == EINTR || Glibc.errno == EAGAIN { continue }
                // EIO: a terminal whose other end is closed.
                if length <= 0 { return .ended(hostIsGone: false) }
                let bytes = UnsafeRawBufferPointer(rebasing: buffer[..<length])
                if let connection, !Relay.writeAll(bytes, to: connection.raw) { return .ended(hostIsGone: true) }
            } else if items[1].revents & (Relay.broken | Relay.hungUp) != 0 {
                return .ended(hostIsGone: true)
            } else if let connection, items[1].revents != 0 || count == 0 && !ended {
                // The host sends no more, which it never does here, or has closed: sending tells them apart.
                if send(connection.raw, nil, 0, Int32(MSG_NOSIGNAL)) < 0 { return .ended(hostIsGone: true) }
                halfClosed = true
            } else if items[2].revents != 0 {
                ended = true
            } else {
                // Another process has the stream open, but writes nothing.
                return .ended(hostIsGone: false)
            }
        }
    }
}
