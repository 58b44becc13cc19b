import CLinux
import Glibc

/// An eventfd(2) counter, with which any thread or process that has the descriptor can wake another.
public struct EventDescriptor: ~Copyable, Sendable {
    public let descriptor: OwnedDescriptor

    /// A new counter at 0, non-blocking, close-on-exec.
    public init() throws(SystemError) {
        descriptor = OwnedDescriptor(owning: try check("eventfd", "", eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))))
    }

    /// Adopts an eventfd that someone else made.
    public init(adopting descriptor: consuming OwnedDescriptor) { self.descriptor = descriptor }

    /// Adds 1 to the counter. A full counter does not change: the wake-up is pending already.
    public func signal() { signalEvent(descriptor.raw) }

    /// Resets the counter to 0.
    ///
    /// - Returns: whether it was not 0.
    @discardableResult
    public func drain() -> Bool {
        var value: UInt64 = 0
        return read(descriptor.raw, &value, 8) == 8
    }
}

extension SharedDescriptor {
    /// A new eventfd(2), as `EventDescriptor` creates it, that can have several owners.
    public static func event() throws(SystemError) -> SharedDescriptor {
        SharedDescriptor(
            OwnedDescriptor(owning: try check("eventfd", "", eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK)))))
    }

    /// Adds 1 to the counter of an eventfd. A counter that is full stays so: the wake-up is already pending.
    public func signal() { signalEvent(raw) }
}

private func signalEvent(_ descriptor: Int32) {
    var one: UInt64 = 1
    _ = write(descriptor, &one, 8)
}

/// One thread's epoll(7) loop: descriptors with handlers, level-triggered.
///
/// Only `stop()` is thread-safe: create the loop, register and run it on one thread. A handler may add and remove
/// registrations, including its own. Events of a registration that was removed in the same round are dropped.
public final class EventLoop: @unchecked Sendable {
    /// What a descriptor can be waited for; the values are epoll's.
    public struct Interest: OptionSet, Sendable {
        public let rawValue: UInt32
        public init(rawValue: UInt32) { self.rawValue = rawValue }
        public static let readable = Interest(rawValue: EPOLLIN.rawValue)
        public static let writable = Interest(rawValue: EPOLLOUT.rawValue)
        /// Always reported, even if not asked for.
        public static let hangUp = Interest(rawValue: EPOLLHUP.rawValue)
        /// Always reported, even if not asked for.
        public static let error = Interest(rawValue: EPOLLERR.rawValue)
        /// The peer closed its sending side; must be asked for.
        public static let readHangUp = Interest(rawValue: EPOLLRDHUP.rawValue)
    }

    public typealias Handler = (Interest) -> Void

    private struct Registration {
        var id: UInt32
        var handler: Handler
    }

    private let epoll: OwnedDescriptor
    private let wake: EventDescriptor
    private var registrations: [Int32: Registration] = [:]
    private var nextID: UInt32 = 1
    private var running = false
    private var events = [epoll_event](repeating: epoll_event(), count: 64)

    public init() throws(SystemError) {
        epoll = OwnedDescriptor(owning: try check("epoll_create1", "", epoll_create1(Int32(EPOLL_CLOEXEC))))
        wake = try EventDescriptor()
        try add(wake.descriptor.raw, .readable) { [unowned self] _ in
            wake.drain()
            running = false
        }
    }

    /// Calls `handler` on the loop's thread whenever an event of `interest` is there. The loop does not own the descriptor: remove
    /// it before you close it.
    public func add(_ descriptor: Int32, _ interest: Interest, handler: @escaping Handler) throws(SystemError) {
        let id = nextID
        nextID &+= 1
        try control(EPOLL_CTL_ADD, descriptor, interest, id)
        registrations[descriptor] = Registration(id: id, handler: handler)
    }

    /// Changes what a registered descriptor waits for.
    public func modify(_ descriptor: Int32, _ interest: Interest) throws(SystemError) {
        guard let registration = registrations[descriptor] else { return }
        try control(EPOLL_CTL_MOD, descriptor, interest, registration.id)
    }

    /// Removes a registration. It is not an error when there is none.
    public func remove(_ descriptor: Int32) {
        guard registrations.removeValue(forKey: descriptor) != nil else { return }
        _ = epoll_ctl(epoll.raw, EPOLL_CTL_DEL, descriptor, nil)
    }

    /// Waits for events and calls their handlers until `stop()`.
    public func run() throws(SystemError) {
        running = true
        while running { try runOnce(timeoutMilliseconds: -1) }
    }

    /// Runs one round: waits for events and calls their handlers.
    ///
    /// - Parameter timeoutMilliseconds: how long to wait; -1: without limit.
    public func runOnce(timeoutMilliseconds: Int32) throws(SystemError) {
        let count = epoll_wait(epoll.raw, &events, Int32(events.count), timeoutMilliseconds)
        if count < 0 {
            if Glibc.errno == EINTR { return }
            throw SystemError.last("epoll_wait")
        }
        for event in events.prefix(Int(count)) {
            let descriptor = Int32(truncatingIfNeeded: event.data.u64 & 0xffff_ffff)
            let id = UInt32(event.data.u64 >> 32)
            // A descriptor that was closed and opened again in this round has another id, and the old event is stale.
            guard let registration = registrations[descriptor], registration.id == id else { continue }
            registration.handler(Interest(rawValue: event.events))
        }
    }

    /// Ends `run()`; may be called from any thread.
    public func stop() { wake.signal() }

    private func control(_ operation: Int32, _ descriptor: Int32, _ interest: Interest, _ id: UInt32)
        throws(SystemError)
    {
        var event = epoll_event()
        event.events = interest.rawValue
        event.data.u64 = UInt64(id) << 32 | UInt64(UInt32(bitPattern: descriptor))
        try check("epoll_ctl", "descriptor \(descriptor)", epoll_ctl(epoll.raw, operation, descriptor, &event))
    }
}
