import LinuxSystem
import Logging
import Synchronization

/// Tells that volumes may have changed: when the kernel says so, or once a second where it has no watches left
/// (`fs.inotify.max_user_instances`, `max_user_watches`: all programs of a user share them). Ends with its value.
final class VolumeWatch: Sendable {
    private let watch: DirectoryWatch?
    private let polling = Mutex<Task<Void, Never>?>(nil)
    private let logger: Logger
    private let onChange: @Sendable () -> Void

    /// - Parameter makeWatch: how the kernel is asked.
    init(
        logger: Logger,
        makeWatch: (@escaping @Sendable () -> Void) throws(SystemError) -> DirectoryWatch = {
            onChange throws(SystemError) in try DirectoryWatch(onChange: onChange)
        }, onChange: @escaping @Sendable () -> Void
    ) {
        self.logger = logger
        self.onChange = onChange
        do throws(SystemError) {
            watch = try makeWatch(onChange)
        } catch {
            watch = nil
            poll(error)
        }
    }

    deinit { polling.withLock { $0?.cancel() } }

    /// Watches a directory too. One that is not there any more was replaced, which is a change that is told of.
    func add(_ path: String) {
        do throws(SystemError) {
            try watch?.add(path)
        } catch {
            if error.errno != .noSuchFileOrDirectory { poll(error) }
        }
    }

    private func poll(_ reason: SystemError) {
        polling.withLock { [onChange] polling in
            if polling != nil { return }
            logger.warning("volumes: \(reason): they are looked at once a second (fs.inotify.max_user_instances)")
            polling = Task {
                while !Task.isCancelled {
                    try? await Task.sleep(for: .seconds(1))
                    onChange()
                }
            }
        }
    }
}
