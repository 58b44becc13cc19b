import LinuxSystem

/// The clock of all spans: the time of day as it was when the process first asked, and from then on the monotonic clock. A time of day
/// that is set meanwhile moves no span.
public enum TraceClock {
    /// What the time of day was ahead of the monotonic clock. Of several readings the one that took the shortest counts.
    private static let offset: UInt64 = {
        var best = (took: UInt64.max, offset: UInt64(0))
        for _ in 0..<5 {
            let before = monotonicNanoseconds()
            let wall = UInt64(clamping: wallClockNanoseconds())
            let after = monotonicNanoseconds()
            if after - before < best.took { best = (after - before, wall &- (before + (after - before) / 2)) }
        }
        return best.offset
    }()

    /// Nanoseconds since the epoch.
    public static var now: UInt64 { time(monotonic: monotonicNanoseconds()) }

    /// - Parameter monotonic: nanoseconds of the monotonic clock.
    /// - Returns: nanoseconds since the epoch.
    public static func time(monotonic: UInt64) -> UInt64 { monotonic &+ offset }
}
