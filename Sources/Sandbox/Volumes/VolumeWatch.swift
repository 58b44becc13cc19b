import LinuxSystem
import Logging
import Synchronization

/// Reports that volumes may have changed: by inotify, or once a second when the kernel has no inotify instances or watches left
/// (`fs.inotify.max_user_instances`, `max_user_watches`: all processes of a user share them). The watch ends when the value is
/// released.
final class VolumeWatch: Sendable {
    private let watch: DirectoryWatch?
    private let polling = Mutex<Task<Void, Never>?>(nil)
    private let logger: Logger
    private let onChange: @Sendable () -> Void

    /// - Parameters:
    ///   - makeWatch: creates the inotify watch.
    ///   - onChange: called when volumes may have changed.
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

    /// Watches another directory. It is not an error when the directory is gone: its replacement is reported as a change.
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
            logger.warning("volumes: \(reason): checking for changes once a second (fs.inotify.max_user_instances)")
            polling = Task {
                while !Task.isCancelled {
                    try? await Task.sleep(for: .seconds(1))
                    onChange()
                }
            }
        }
    }
}
