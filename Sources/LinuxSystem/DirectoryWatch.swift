import Glibc

/// Tells of changes in directories: entries that come, go or are renamed, their content, owners and modes. Ends with its
/// value.
///
/// Source: inotify(7).
public final class DirectoryWatch: Sendable {
    private let queue: SharedDescriptor
    private let watch: ChangeWatch

    /// - Parameter onChange: called on a thread of the watch's own, once for changes that come together.
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

    /// Watches a directory too, which is no symbolic link; one that is watched already stays so. It is forgotten when it is
    /// removed.
    public func add(_ path: String) throws(SystemError) {
        let mask =
            IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ATTRIB | IN_CLOSE_WRITE | IN_DELETE_SELF
            | IN_ONLYDIR | IN_DONT_FOLLOW
        try check("inotify_add_watch", path, inotify_add_watch(queue.raw, path, UInt32(mask)))
    }
}
