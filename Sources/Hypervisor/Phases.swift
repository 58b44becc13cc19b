import LinuxSystem
public import Logging
import Telemetry

/// The steps of a start in the debug log: the message `phase` with the metadata `phase`, the step's name, and `at`, its
/// time in nanoseconds of the monotonic clock. `martlet bench start` reads them. The metric `martlet_start_phase_seconds` has most of
/// them too.
extension Logger {
    /// The message of a line that tells a phase.
    public static let phaseMessage = "phase"
    public static let phaseNameKey = "phase"
    public static let phaseTimeKey = "at"

    /// - Parameter time: nanoseconds of the monotonic clock.
    public func phase(_ name: String, at time: UInt64 = monotonicNanoseconds()) {
        StartPhases.note(name, at: time)
        debug("\(Self.phaseMessage)", metadata: [Self.phaseNameKey: "\(name)", Self.phaseTimeKey: "\(time)"])
    }
}
