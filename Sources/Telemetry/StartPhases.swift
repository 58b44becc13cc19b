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
        var seen: Set<String> = []
    }

    private static let state = Mutex(State())

    /// The launch of the pod begins. Only the first call counts.
    ///
    /// - Parameter time: nanoseconds of the monotonic clock.
    public static func begin(at time: UInt64) { state.withLock { $0.begin = $0.begin ?? time } }

    /// A phase is over, which counts when it is the first of its name.
    public static func note(_ name: String, at time: UInt64) {
        guard names.contains(name) else { return }
        let duration: UInt64? = state.withLock { state in
            guard let begin = state.begin, time >= begin, state.seen.insert(name).inserted else { return nil }
            return time - begin
        }
        guard let duration else { return }
        let label = String(name.map { $0 == " " ? "_" : $0 })
        MetricFamily.startPhase.observe([label], nanoseconds: duration)
    }
}
