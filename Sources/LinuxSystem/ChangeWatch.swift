import Glibc

/// Watches a descriptor that reports changes, on a thread of its own. Changes that come close together are reported once. The
/// watch ends when the value is released.
public final class ChangeWatch: Sendable {
    private let stop: SharedDescriptor

    /// How long the watch waits for further changes before it reports one, milliseconds.
    private static let delay: Int32 = 20
    /// The largest number of delays in a row, for changes that do not stop.
    private static let maximumDelays = 25

    /// - Parameters:
    ///   - name: of the thread.
    ///   - descriptor: has one of `events` when something has changed.
    ///   - events: as poll(2) has them.
    ///   - drain: reads all that is there; returns whether there was anything.
    ///   - onChange: called on the watch's thread.
    public init(
        _ name: String, _ descriptor: SharedDescriptor, events: Int32 = POLLIN, drain: @escaping @Sendable () -> Bool,
        onChange: @escaping @Sendable () -> Void
    ) throws(SystemError) {
        let stop = try SharedDescriptor.event()
        self.stop = stop
        try startThread(name) {
            while Self.wait(descriptor.raw, events, stop.raw, milliseconds: -1) {
                // The descriptor keeps what arrives in the meantime.
                for _ in 0..<Self.maximumDelays {
                    if !Self.wait(-1, 0, stop.raw, milliseconds: Self.delay) || !drain() { break }
                }
                if Self.isStopped(stop.raw) { return }
                onChange()
            }
        }
    }

    deinit { stop.signal() }

    /// Waits for the descriptor.
    ///
    /// - Returns: false when the watch has ended.
    private static func wait(_ descriptor: Int32, _ events: Int32, _ stop: Int32, milliseconds: Int32) -> Bool {
        var items = [
            pollfd(fd: descriptor, events: Int16(events), revents: 0),
            pollfd(fd: stop, events: Int16(POLLIN), revents: 0),
        ]
        poll(&items, 2, milliseconds)
        return items[1].revents == 0
    }

    private static func isStopped(_ stop: Int32) -> Bool { !wait(-1, 0, stop, milliseconds: 0) }
}
