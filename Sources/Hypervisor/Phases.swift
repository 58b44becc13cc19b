import LinuxSystem
public import Logging

/// The steps of a start, with their times, in the debug log: one line each, `phase NAME NANOSECONDS` on the monotonic
/// clock. `martlet bench start` reads them.
extension Logger {
    public func phase(_ name: String, at time: UInt64 = monotonicNanoseconds()) { debug("phase \(name) \(time)") }

    /// Logs a line of the guest's console; the agent's first word is a phase, too.
    func guest(_ line: String) {
        if line == "martlet-agent ready" { phase("agent ready") }
        debug("guest: \(line)")
    }
}
