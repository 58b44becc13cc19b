import Glibc

/// Watches directories: entries that are created, removed or renamed, and their contents, owners and modes. The watch ends
/// when the value is released.
///
/// Source: inotify(7).
public final class DirectoryWatch: Sendable {
    private let queue: SharedDescriptor
    private let watch: ChangeWatch

    /// - Parameter onChange: called on a thread of the watch; once for changes that come close together.
    public init(onChange: @escaping @Sendable () -> Void) throws(SystemError) {
        let queue = SharedDescriptor(
            OwnedDescriptor(owning: try check("inotify_init", "", inotify_init1(Int32(IN_CLOEXEC | IN_NONBLOCK)))))
        self.queue = queue
        watch = try ChangeWatch(
            "directory watch", queue,
            drain: {
                var bytes = [UInt8](repeating: 0, count: 16384)
                var isSome = false
                while read(queue.raw, &bytes, bytes.count) > 0 { isSome = true }
                return isSome
            }, onChange: onChange)
    }

    /// Watches another directory, which must not be a symbolic link. Adding it again changes nothing. The watch of a directory
    /// ends when the directory is removed.
    public func add(_ path: String) throws(SystemError) {
        let mask =
            IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ATTRIB | IN_CLOSE_WRITE | IN_DELETE_SELF
            | IN_ONLYDIR | IN_DONT_FOLLOW
        try check("inotify_add_watch", path, inotify_add_watch(queue.raw, path, UInt32(mask)))
    }
}
