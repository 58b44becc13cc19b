import Glibc

/// Waits on a thread of its own for a descriptor that tells of changes, and reports once those that come together. Ends with
/// its value.
public final class ChangeWatch: Sendable {
    private let stop: SharedDescriptor

    /// How long a change waits for others to come with it, milliseconds.
    private static let pause: Int32 = 20
    /// So many pauses at most, where changes don't end.
    private static let patience = 25

    /// - Parameters:
    ///   - name: of the thread.
    ///   - descriptor: readable when something has changed.
    ///   - drain: takes what there is to read; answers whether it was anything.
    ///   - onChange: called on the watch's thread.
    public init(
        _ name: String, _ descriptor: SharedDescriptor, drain: @escaping @Sendable () -> Bool,
        onChange: @escaping @Sendable () -> Void
    ) throws(SystemError) {
        let stop = try SharedDescriptor.event()
        self.stop = stop
        try startThread(name) {
            while Self.wait(descriptor.raw, stop.raw, milliseconds: -1) {
                // What comes while nobody waits is kept by the descriptor.
                for _ in 0..<Self.patience {
                    if !Self.wait(-1, stop.raw, milliseconds: Self.pause) || !drain() { break }
                }
                if Self.isStopped(stop.raw) { return }
                onChange()
            }
        }
    }

    deinit { stop.signal() }

    /// False when the watch has ended.
    private static func wait(_ descriptor: Int32, _ stop: Int32, milliseconds: Int32) -> Bool {
        var items = [
            pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0),
            pollfd(fd: stop, events: Int16(POLLIN), revents: 0),
        ]
        poll(&items, 2, milliseconds)
        return items[1].revents == 0
    }

    private static func isStopped(_ stop: Int32) -> Bool { !wait(-1, stop, milliseconds: 0) }
}
