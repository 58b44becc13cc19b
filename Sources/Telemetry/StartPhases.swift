import Synchronization

/// How long the start of this process's pod has taken until each of its phases was over.
public enum StartPhases {
    /// Those that are told; the log has more.
    private static let names: Set<String> = [
        "rootfs ready", "network ready", "machine spawned", "first instruction", "vsock started", "agent ready",
        "agent connected", "container created", "container started", "container restored", "container resumed",
    ]

    private struct State {
        var begin: UInt64?
        /// Of each phase the first time, nanoseconds of the monotonic clock.
        var times: [String: UInt64] = [:]
    }

    private static let state = Mutex(State())

    /// The launch of the pod begins. Only the first call counts.
    ///
    /// - Parameter time: nanoseconds of the monotonic clock.
    public static func begin(at time: UInt64) { state.withLock { $0.begin = $0.begin ?? time } }

    /// When each phase was over that there was so far, nanoseconds of the monotonic clock.
    public static var times: [String: UInt64] { state.withLock { $0.times } }

    /// A phase is over, which counts when it is the first of its name.
    public static func note(_ name: String, at time: UInt64) {
        let duration: UInt64? = state.withLock { state in
            guard let begin = state.begin, time >= begin, state.times[name] == nil else { return nil }
            state.times[name] = time
            return names.contains(name) ? time - begin : nil
        }
        guard let duration else { return }
        let label = String(name.map { $0 == " " ? "_" : $0 })
        MetricFamily.startPhase.observe([label], nanoseconds: duration)
    }
}
