import LinuxSystem
public import Logging

/// The steps of a start, with their times, in the debug log: one line each, `phase NAME NANOSECONDS` on the monotonic
/// clock. `martlet bench start` reads them.
extension Logger {
    public func phase(_ name: String, at time: UInt64 = monotonicNanoseconds()) { debug("phase \(name) \(time)") }
}
