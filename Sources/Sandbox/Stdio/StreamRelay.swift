import CLinux
import Glibc
import LinuxSystem
import Synchronization

/// Carries one stream between the engine's descriptor (pipe, fifo, file, terminal) and the guest's vsock connection,
/// on a thread of its own: a slow reader stalls nothing but its own stream.
///
/// Without a connection it is detached: nobody reads or writes the engine's descriptor then, which stays open. It gets one connection after
/// another.
///
/// The engine's descriptor is shared with other processes, so its flags stay as they are: it is polled first, and a
/// pipe is moved with splice(2), which can be told not to block.
final class StreamRelay: Sendable {
    /// Which way the bytes go.
    enum Direction: Sendable { case toGuest, fromGuest }

    private struct State {
        /// Whether the connection is to be let go of, or has been.
        var isDetached: Bool
        /// Whether it has been.
        var hasLetGo: Bool
        /// Whoever waits until it has been.
        var detached: Promise<Void>?
        /// The connection that comes when it has been.
        var next: SharedDescriptor?
        /// Whether none comes any more.
        var isCancelled = false
        var hasEnded = false

        mutating func takeNext() -> SharedDescriptor? {
            defer { next = nil }
            return next
        }

        mutating func takeDetached() -> Promise<Void>? {
            defer { detached = nil }
            return detached
        }
    }

    let name: String
    private let cancelled: SharedDescriptor
    private let processEnded: SharedDescriptor
    private let finished: Promise<Void>
    private let state: Mutex<State>
    /// Signalled when the thread is to let go of its connection, and when it waits for the next one, to look for that.
    private let wake: SharedDescriptor

    /// Starts carrying. The engine's descriptor is let go of at the end, so that its reader learns of that.
    ///
    /// - Parameter guest: a socket, which becomes non-blocking; nil: it begins detached.
    init(name: String, engine: SharedDescriptor, guest: SharedDescriptor?, direction: Direction) throws {
        self.name = name
        cancelled = try SharedDescriptor.event()
        processEnded = try SharedDescriptor.event()
        finished = try Promise()
        state = Mutex(State(isDetached: guest == nil, hasLetGo: guest == nil))
        wake = try SharedDescriptor.event()
        let carrier = StreamCarrier(
            engine: engine, direction: direction, cancelled: cancelled, processEnded: processEnded, detach: wake)
        try startThread(name) { [self] in carry(guest, carrier) }
    }

    private func carry(_ first: SharedDescriptor?, _ carrier: StreamCarrier) {
        var (guest, carrier) = (first ?? next(), carrier)
        while carryOnce(&guest, &carrier) { guest = next() }
        let detached = state.withLock { state in
            (state.hasEnded, state.next) = (true, nil)
            return state.takeDetached()
        }
        detached?.settle(())
        finished.settle(())
    }

    /// Carries a connection, which closes then.
    ///
    /// - Returns: whether there may be another one.
    private func carryOnce(_ guest: inout SharedDescriptor?, _ carrier: inout StreamCarrier) -> Bool {
        guard let connection = guest else { return false }
        guest = nil
        let end = carrier.carry(connection)
        // The other side learns that nothing more comes this way.
        shutdown(connection.raw, Int32(carrier.direction == .toGuest ? SHUT_WR : SHUT_RDWR))
        return end == .detached
    }

    /// Blocks until there is another connection; nil: there will be none.
    private func next() -> SharedDescriptor? {
        while true {
            let (isDecided, next, detached) = state.withLock { state in
                var count: UInt64 = 0
                _ = read(wake.raw, &count, 8)
                let next = state.takeNext()
                state.hasLetGo = next == nil
                // It is to be let go of too.
                if next != nil, state.isDetached { wake.signal() }
                let isOld = next != nil && state.isDetached
                return (next != nil || state.isCancelled, next, isOld ? nil : state.takeDetached())
            }
            detached?.settle(())
            if isDecided { return next }
            var item = pollfd(fd: wake.raw, events: Int16(POLLIN), revents: 0)
            poll(&item, 1, -1)
        }
    }

    /// Ends the relay; bytes not carried yet are dropped.
    func cancel() {
        cancelled.signal()
        state.withLock { state in
            state.isCancelled = true
            if state.isDetached { wake.signal() }
        }
    }

    /// Says that the process has ended. What it has written is still carried, however slow the reader is; but the guest must send it, and
    /// there can't be more of it than its buffers hold.
    func endOfProcess() { processEnded.signal() }

    /// Suspends until everything is carried, or the reader has gone, or it was cancelled.
    func finish() async { await finished.value() }

    // MARK: Detaching

    /// Whether there is anything to carry with another connection.
    var isAttachable: Bool { state.withLock { $0.isDetached && !$0.isCancelled && !$0.hasEnded } }

    /// Begins to let go of the connection. An input reads nothing more from the engine, sends what it has read, and ends its sending side
    /// when the guest has ended its own. An output carries until the guest ends it.
    func detach() throws(SystemError) {
        let promise = try Promise<Void>()
        state.withLock { state in
            if state.isDetached || state.hasEnded { return }
            state.isDetached = true
            state.detached = state.detached ?? promise
            wake.signal()
        }
    }

    /// Whether it has no connection and will get none before `attach`.
    var hasLetGo: Bool { state.withLock { $0.hasEnded || $0.isDetached && $0.hasLetGo } }

    /// Suspends until the connection has been let go of, or the relay has ended.
    func detached() async { await state.withLock { $0.detached }?.value() }

    /// Goes on with another connection, when the last one is done with.
    ///
    /// - Parameter guest: as at the start. It is closed where the relay has ended.
    func attach(_ guest: SharedDescriptor) {
        state.withLock { state in
            guard state.isDetached, !state.isCancelled, !state.hasEnded else { return }
            (state.next, state.isDetached, state.hasLetGo) = (guest, false, false)
            wake.signal()
        }
    }
}

/// Why a connection is carried no further.
private enum CarryEnd { case ended, detached }

/// The work of a relay, on its thread.
private struct StreamCarrier: Sendable {
    let engine: SharedDescriptor
    let direction: StreamRelay.Direction
    let cancelled: SharedDescriptor
    let processEnded: SharedDescriptor
    /// Signalled when the connection is to be let go of.
    let detach: SharedDescriptor
    /// Bytes that may still come; nil: the process lives.
    private var left: Int?

    private static let chunk = 64 << 10
    /// What a guest's pipe, its agent and a vsock connection can hold, with plenty to spare.
    private static let mostAfterEnd = 8 << 20
    /// How long the guest may rest before it sends more of it, milliseconds.
    private static let restAfterEnd: Int32 = 10_000

    init(
        engine: SharedDescriptor, direction: StreamRelay.Direction, cancelled: SharedDescriptor,
        processEnded: SharedDescriptor, detach: SharedDescriptor
    ) {
        self.engine = engine
        self.direction = direction
        self.cancelled = cancelled
        self.processEnded = processEnded
        self.detach = detach
    }

    mutating func carry(_ guest: SharedDescriptor) -> CarryEnd {
        let source = direction == .toGuest ? engine.raw : guest.raw
        let sink = direction == .toGuest ? guest.raw : engine.raw
        // An output is detached by the guest.
        let stop = direction == .toGuest ? detach.raw : -1
        martlet_fcntl_int(guest.raw, F_SETFL, Int(O_NONBLOCK))
        var facts = stat()
        let splices = fstat(engine.raw, &facts) == 0 && facts.st_mode & S_IFMT == S_IFIFO
        var buffer = [UInt8](repeating: 0, count: splices ? 0 : Self.chunk)
        while true {
            var state = wait(source, POLLIN, orBrokenSink: sink, stop: stop)
            if splices, state == .ready { state = wait(sink, POLLOUT, orBrokenSink: sink, stop: stop) }
            switch state {
            case .ready: break
            case .over: return .ended
            case .stop: return endInput(guest)
            }
            if splices {
                let moved = splice(source, nil, sink, nil, Self.chunk, UInt32(SPLICE_F_NONBLOCK | SPLICE_F_MOVE))
                if moved == 0 { return sourceEnd() }
                count(moved)
                if moved < 0 && errno != EAGAIN && errno != EINTR { return .ended }
            } else {
                let count = read(source, &buffer, buffer.count)
                if count == 0 { return sourceEnd() }
                if count < 0 {
                    if errno == EAGAIN || errno == EINTR { continue }
                    return .ended  // EIO: the terminal's other end has gone
                }
                guard write(buffer[0..<count], to: sink) else { return .ended }
                self.count(count)
            }
            if let left, left <= 0 { return .ended }
        }
    }

    private mutating func count(_ bytes: Int) { if let left { self.left = left - max(0, bytes) } }

    /// What the end of the source is. The guest ends an output to detach it, too; it closes the next connection where it did not.
    private func sourceEnd() -> CarryEnd {
        if direction == .toGuest { return .ended }
        var item = pollfd(fd: detach.raw, events: Int16(POLLIN), revents: 0)
        return poll(&item, 1, 0) > 0 ? .detached : .ended
    }

    /// Waits until the guest has ended its side of an input that is detached. Before, it would take our end for the input's.
    private func endInput(_ guest: SharedDescriptor) -> CarryEnd {
        while true {
            var items = [
                pollfd(fd: guest.raw, events: Self.halfClosed, revents: 0),
                pollfd(fd: cancelled.raw, events: Int16(POLLIN), revents: 0),
            ]
            if poll(&items, 2, -1) < 0, errno != EINTR { return .ended }
            if items[1].revents != 0 { return .ended }
            if items[0].revents != 0 { return .detached }
        }
    }

    private mutating func write(_ bytes: ArraySlice<UInt8>, to sink: Int32) -> Bool {
        var rest = bytes
        while !rest.isEmpty {
            guard wait(sink, POLLOUT, orBrokenSink: sink) == .ready else { return false }
            let count = rest.withUnsafeBytes { Glibc.write(sink, $0.baseAddress, $0.count) }
            if count > 0 {
                rest = rest.dropFirst(count)
            } else if errno != EAGAIN && errno != EINTR {
                return false
            }
        }
        return true
    }

    private enum Waited { case ready, stop, over }

    /// POLLRDHUP: the peer sends no more.
    private static let halfClosed: Int16 = 0x2000

    /// Blocks until `descriptor` is ready, or `stop` is; `over`: it was cancelled, nobody reads `sink` any more, or the guest sends nothing
    /// more of a process that has ended.
    private mutating func wait(
        _ descriptor: Int32, _ event: Int32, orBrokenSink sink: Int32, stop: Int32 = -1
    ) -> Waited {
        while true {
            var items = [
                pollfd(fd: descriptor, events: Int16(event), revents: 0),
                pollfd(fd: sink, events: sink == descriptor ? Int16(event) : 0, revents: 0),
                pollfd(fd: cancelled.raw, events: Int16(POLLIN), revents: 0),
                pollfd(fd: left == nil ? processEnded.raw : -1, events: Int16(POLLIN), revents: 0),
                pollfd(fd: stop, events: Int16(POLLIN), revents: 0),
            ]
            let isForGuest = direction == .fromGuest && event == POLLIN
            let ready = poll(&items, 5, left != nil && isForGuest ? Self.restAfterEnd : -1)
            if ready == 0 { return .over }
            if ready < 0 {
                if errno == EINTR { continue }
                return .over
            }
            if items[3].revents != 0 { left = Self.mostAfterEnd }
            if items[2].revents != 0 { return .over }
            if Int32(items[1].revents) & (POLLERR | POLLNVAL) != 0 { return .over }
            // A socket whose other end is closed reports POLLHUP for good: as a sink, nobody reads it.
            if event == POLLIN, direction == .toGuest, Int32(items[1].revents) & POLLHUP != 0 { return .over }
            if items[4].revents != 0 { return .stop }
            if items[0].revents != 0 { return .ready }
        }
    }
}
