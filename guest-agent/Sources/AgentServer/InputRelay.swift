import CLinux
import Glibc
import LinuxSystem

/// From the host to a process: its stdin, or its terminal.
struct InputRelay {
    /// The write end of a pipe, of which the relay is the only owner while it runs, or a terminal's master.
    let sink: SharedDescriptor
    /// Signalled when no more input comes: the process ended, or the host asked.
    let stop: SharedDescriptor
    /// What the host has sent and the process has no room for yet.
    private var kept = Kept()

    /// How much is kept of what comes while the stream is being detached, for a process that does not read. A connection can hold less.
    private static let mostKept = 4 << 20

    /// - Parameter sink: becomes non-blocking.
    init(sink: SharedDescriptor, stop: SharedDescriptor) {
        (self.sink, self.stop) = (sink, stop)
        try? sink.setNonBlocking(true)
    }

    /// Relays until the stream ends or is detached. What the process has not taken then is kept for the next time.
    ///
    /// - Parameters:
    ///   - connection: nil: nothing more comes than what is kept.
    ///   - detach: signalled when the relay is to let go. It ends its sending side then, whereupon the host ends its own: all that the
    ///     host has sent has come when that end has.
    mutating func run(from connection: SharedDescriptor?, detach: SharedDescriptor) -> RelayEnd {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Relay.bufferSize, alignment: 16)
        defer { buffer.deallocate() }
        var (hasEnded, stopping, detaching) = (connection == nil, false, false)
        var items = [pollfd](repeating: pollfd(), count: 4)
        while true {
            if hasEnded, kept.isEmpty { return .ended(hostIsGone: false) }
            let reads = !hasEnded && (kept.isEmpty || detaching && kept.count < Self.mostKept)
            items[0] = pollfd(fd: reads ? connection?.raw ?? -1 : -1, events: Relay.readable, revents: 0)
            items[1] = pollfd(fd: sink.raw, events: kept.isEmpty ? 0 : Relay.writable, revents: 0)
            items[2] = pollfd(fd: stopping ? -1 : stop.raw, events: Relay.readable, revents: 0)
            items[3] = pollfd(fd: detaching ? -1 : detach.raw, events: Relay.readable, revents: 0)
            // When it is to stop, only what is already here is passed on.
            let count = poll(&items, 4, stopping && kept.isEmpty ? 0 : -1)
            if count < 0 { continue }
            // The reader is gone.
            if items[1].revents & (Relay.broken | Relay.hungUp) != 0 { return .ended(hostIsGone: false) }
            if items[3].revents != 0 {
                guard let connection, !hasEnded else { return .detached }
                shutdown(connection.raw, Int32(SHUT_WR))
                detaching = true
            } else if items[1].revents != 0 {
                guard kept.write(to: sink.raw) else { return .ended(hostIsGone: false) }
            } else if items[0].revents != 0, let connection {
                let length = read(connection.raw, buffer.baseAddress, buffer.count)
                if length < 0, Glibc.errno == EINTR || Glibc.errno == EAGAIN { continue }
                if length > 0 {
                    kept.append(UnsafeRawBufferPointer(rebasing: buffer[..<length]))
                    guard kept.write(to: sink.raw) else { return .ended(hostIsGone: false) }
                } else if detaching {
                    return .detached
                } else {
                    hasEnded = true
                }
            } else if items[2].revents != 0 {
                stopping = true
            } else if stopping, kept.isEmpty {
                return .ended(hostIsGone: false)
            }
        }
    }
}

/// Bytes on their way.
private struct Kept {
    private var bytes: [UInt8] = []
    private var written = 0

    var count: Int { bytes.count - written }
    var isEmpty: Bool { count == 0 }

    mutating func append(_ more: UnsafeRawBufferPointer) {
        bytes.removeFirst(written)
        written = 0
        bytes += more
    }

    /// Writes as much as there is room for; false when the reader is gone.
    mutating func write(to descriptor: Int32) -> Bool {
        while !isEmpty {
            let length = bytes.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress.map { $0 + written }, count) }
            if length < 0 {
                if Glibc.errno == EINTR { continue }
                return Glibc.errno == EAGAIN
            }
            written += length
        }
        // Most were not many.
        bytes.removeAll(keepingCapacity: bytes.capacity <= 2 * Relay.bufferSize)
        written = 0
        return true
    }
}
