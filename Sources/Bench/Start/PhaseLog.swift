import LinuxSystem
import Logging
import Synchronization

/// The phases of a start, from lines of the debug log: `phase NAME NANOSECONDS`.
struct PhaseTimes: Sendable {
    private(set) var times: [(name: String, at: UInt64)] = []

    /// Records the phase in a line of the log. Other lines are ignored.
    mutating func record(line: some StringProtocol) {
        let words = line.split(separator: " ")
        guard let start = words.firstIndex(of: "phase"), words.count > start + 2,
            let time = words.last.flatMap({ UInt64($0) })
        else { return }
        times.append((words[(start + 1)..<(words.count - 1)].joined(separator: " "), time))
    }

    func time(of name: String) -> UInt64? { times.first { $0.name == name }?.at }
}

/// A log that records phases, and on which a caller can wait for one.
final class PhaseLog: Sendable {
    private let phases = Mutex(PhaseTimes())
    private let awaited: String
    private let arrived: Promise<UInt64>

    /// - Parameter awaited: the phase that `wait` waits for.
    init(awaiting awaited: String) throws {
        self.awaited = awaited
        arrived = try Promise()
    }

    var logger: Logger {
        var logger = Logger(label: "bench") { [self] _ in Handler(log: self) }
        logger.logLevel = .debug
        return logger
    }

    /// Waits for the phase and returns its time; nil after `timeout`.
    func wait(timeout: Duration) -> UInt64? { arrived.wait(timeout: timeout) }

    func time(of name: String) -> UInt64? { phases.withLock { $0.time(of: name) } }

    fileprivate func record(_ line: String) {
        // The tiny guest writes an empty line.
        let line = line == "guest: " ? "phase guest's line \(monotonicNanoseconds())" : line
        let time = phases.withLock { phases in
            phases.record(line: line)
            return phases.time(of: awaited)
        }
        if let time { arrived.settle(time) }
    }

    private struct Handler: LogHandler {
        let log: PhaseLog
        var metadata: Logger.Metadata = [:]
        var logLevel = Logger.Level.debug

        init(log: PhaseLog) { self.log = log }

        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }

        func log(event: LogEvent) { log.record("\(event.message)") }
    }
}
