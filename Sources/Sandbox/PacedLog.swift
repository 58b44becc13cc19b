import LinuxSystem
import Logging
import Synchronization

/// A logger for what the guest decides the number of: lines that come too often are left out, and the next line is preceded by
/// one that says how many.
final class PacedLog: Sendable {
    private let logger: Logger
    private let pace = Mutex(Pace(burst: 20, perSecond: 1))

    init(_ logger: Logger) { self.logger = logger }

    /// Writes a line.
    func write(_ level: Logger.Level, _ message: @autoclosure () -> String) {
        guard level >= logger.logLevel, let refused = pace.withLock({ $0.admit() }) else { return }
        if refused > 0 { logger.log(level: level, "\(refused) lines dropped: the guest causes too many") }
        logger.log(level: level, "\(message())")
    }
}
