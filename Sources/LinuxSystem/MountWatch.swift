import Glibc

/// Watches the mounts that this process sees. The watch ends when the value is released.
///
/// Source: proc(5), /proc/PID/mountinfo with poll(2).
public final class MountWatch: Sendable {
    private let watch: ChangeWatch

    /// - Parameter onChange: called on a thread of the watch when there are mounts that were not there before, or some have gone; once for
    ///   changes that come close together.
    public init(onChange: @escaping @Sendable () -> Void) throws(SystemError) {
        let table = SharedDescriptor(try OwnedDescriptor.open("/proc/self/mountinfo", O_RDONLY))
        // The kernel reports a change to each open file once, when that is polled.
        watch = try ChangeWatch(
            "mount watch", table, events: POLLPRI,
            drain: {
                var item = pollfd(fd: table.raw, events: Int16(POLLPRI), revents: 0)
                return poll(&item, 1, 0) > 0
            }, onChange: onChange)
    }
}
