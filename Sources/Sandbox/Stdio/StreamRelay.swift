import CLinux
import Glibc
import LinuxSystem

/// Carries one stream between the engine's descriptor (pipe, fifo, file, terminal) and the guest's vsock connection,
/// on a thread of its own: a slow reader stalls nothing but its own stream.
///
/// The engine's descriptor is shared with other processes, so its flags stay as they are: it is polled first, and a
/// pipe is moved with splice(2), which can be told not to block.
final class StreamRelay: Sendable {
    /// Which way the bytes go.
    enum Direction: Sendable { case toGuest, fromGuest }

    private let cancelled: SharedDescriptor
    private let processEnded: SharedDescriptor
    private let finished: Promise<Void>

    /// Starts carrying. `guest` must be a socket; it becomes non-blocking. The engine's descriptor is let go of at the end,
    /// so that its reader learns of that.
    init(name: String, engine: SharedDescriptor, guest: SharedDescriptor, direction: Direction) throws {
        let cancelled = try SharedDescriptor.event()
        let processEnded = try SharedDescriptor.event()
        let finished = try Promise<Void>()
        (self.cancelled, self.processEnded, self.finished) = (cancelled, processEnded, finished)
        try startThread(name) {
            var carrier = StreamCarrier(
                engine: engine, guest: guest, direction: direction, cancelled: cancelled, processEnded: processEnded)
            carrier.carry()
            // The other side learns that nothing more comes this way.
            shutdown(guest.raw, Int32(direction == .toGuest ? SHUT_WR : SHUT_RDWR))
            finished.settle(())
        }
    }

    /// Ends the relay; bytes not carried yet are dropped.
    func cancel() { cancelled.signal() }

    /// Says that the process has ended. What it has written is still carried, however slow the reader is; but the guest must send it, and
    /// there can't be more of it than its buffers hold.
    func endOfProcess() { processEnded.signal() }

    /// Suspends until everything is carried, or the reader has gone, or it was cancelled.
    func finish() async { await finished.value() }
}

/// The work of a relay, on its thread.
private struct StreamCarrier {
    let engine: SharedDescriptor
    let guest: SharedDescriptor
    let direction: StreamRelay.Direction
    let cancelled: SharedDescriptor
    let processEnded: SharedDescriptor
    /// Bytes that may still come; nil: the process lives.
    private var left: Int?

    private static let chunk = 64 << 10
    /// What a guest's pipe, its agent and a vsock connection can hold, with plenty to spare.
    private static let mostAfterEnd = 8 << 20
    /// How long the guest may rest before it sends more of it, milliseconds.
    private static let restAfterEnd: Int32 = 10_000

    init(
        engine: SharedDescriptor, guest: SharedDescriptor, direction: StreamRelay.Direction,
        cancelled: SharedDescriptor, processEnded: SharedDescriptor
    ) {
        self.engine = engine
        self.guest = guest
        self.direction = direction
        self.cancelled = cancelled
        self.processEnded = processEnded
    }

    mutating func carry() {
        let source = direction == .toGuest ? engine.raw : guest.raw
        let sink = direction == .toGuest ? guest.raw : engine.raw
        martlet_fcntl_int(guest.raw, F_SETFL, Int(O_NONBLOCK))
        var facts = stat()
        let splices = fstat(engine.raw, &facts) == 0 && facts.st_mode & S_IFMT == S_IFIFO
        var buffer = [UInt8](repeating: 0, count: splices ? 0 : Self.chunk)
        while wait(source, POLLIN, orBrokenSink: sink) {
            if splices {
                guard wait(sink, POLLOUT, orBrokenSink: sink) else { return }
                let moved = splice(source, nil, sink, nil, Self.chunk, UInt32(SPLICE_F_NONBLOCK | SPLICE_F_MOVE))
                if moved == 0 { return }
                count(moved)
                if moved < 0 && errno != EAGAIN && errno != EINTR { return }
            } else {
                let count = read(source, &buffer, buffer.count)
                if count == 0 { return }
                if count < 0 {
                    if errno == EAGAIN || errno == EINTR { continue }
                    return  // EIO: the terminal's other end has gone
                }
                guard write(buffer[0..<count], to: sink) else { return }
                self.count(count)
            }
            if let left, left <= 0 { return }
        }
    }

    private mutating func count(_ bytes: Int) { if let left { self.left = left - max(0, bytes) } }

    private mutating func write(_ bytes: ArraySlice<UInt8>, to sink: Int32) -> Bool {
        var rest = bytes
        while !rest.isEmpty {
            guard wait(sink, POLLOUT, orBrokenSink: sink) else { return false }
            let count = rest.withUnsafeBytes { Glibc.write(sink, $0.baseAddress, $0.count) }
            if count > 0 {
                rest = rest.dropFirst(count)
            } else if errno != EAGAIN && errno != EINTR {
                return false
            }
        }
        return true
    }

    /// Blocks until `descriptor` is ready; false when cancelled, when nobody reads `sink` any more, or when the guest sends nothing
    /// more of a process that has ended.
    private mutating func wait(_ descriptor: Int32, _ event: Int32, orBrokenSink sink: Int32) -> Bool {
        while true {
            var items = [
                pollfd(fd: descriptor, events: Int16(event), revents: 0),
                pollfd(fd: sink, events: sink == descriptor ? Int16(event) : 0, revents: 0),
                pollfd(fd: cancelled.raw, events: Int16(POLLIN), revents: 0),
                pollfd(fd: left == nil ? processEnded.raw : -1, events: Int16(POLLIN), revents: 0),
            ]
            let isForGuest = direction == .fromGuest && event == POLLIN
            let ready = poll(&items, 4, left != nil && isForGuest ? Self.restAfterEnd : -1)
            if ready == 0 { return false }
            if ready < 0 {
                if errno == EINTR { continue }
                return false
            }
            if items[3].revents != 0 { left = Self.mostAfterEnd }
            if items[2].revents != 0 { return false }
            if Int32(items[1].revents) & (POLLERR | POLLNVAL) != 0 { return false }
            // A socket whose other end is closed reports POLLHUP for good: as a sink, nobody reads it.
            if event == POLLIN, direction == .toGuest, Int32(items[1].revents) & POLLHUP != 0 { return false }
            if items[0].revents != 0 { return true }
        }
    }
}
