import FoundationEssentials
import Hypervisor
import LinuxSystem
import Logging
import Synchronization

/// The phases of a start, as they stand in the debug log (`Logger.phase`).
struct PhaseTimes: Sendable {
    private(set) var times: [(name: String, at: UInt64)] = []

    /// A line of `--log-format json`, as far as it matters here.
    private struct Line: Decodable {
        var msg: String
        var phase: String?
        var at: String?
    }

    /// Takes a phase out of a line of a JSON log; other lines change nothing.
    mutating func record(line: some StringProtocol) {
        guard let line = try? JSONDecoder().decode(Line.self, from: Data(line.utf8)) else { return }
        take(message: line.msg, phase: line.phase, at: line.at)
    }

    /// Takes a phase out of a log event; other events change nothing.
    mutating func take(_ event: LogEvent) {
        take(
            message: "\(event.message)", phase: event.metadata?[Logger.phaseNameKey].map { "\($0)" },
            at: event.metadata?[Logger.phaseTimeKey].map { "\($0)" })
    }

    /// - Parameter time: nanoseconds of the monotonic clock.
    mutating func add(_ name: String, at time: UInt64) { times.append((name, time)) }

    private mutating func take(message: String, phase: String?, at: String?) {
        guard message == Logger.phaseMessage, let phase, let time = at.flatMap({ UInt64($0) }) else { return }
        add(phase, at: time)
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

    fileprivate func take(_ event: LogEvent) {
        let time = phases.withLock { phases in
            // A guest that only writes the end of a line.
            if "\(event.message)" == "guest: " { phases.add("guest's line", at: monotonicNanoseconds()) }
            phases.take(event)
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

        func log(event: LogEvent) { log.take(event) }
    }
}
