import Glibc

/// How long the threads of some processes have been ready to run and had no CPU, since each began.
///
/// Source: Documentation/scheduler/sched-stats.rst, /proc/PID/schedstat.
public struct RunDelays: Sendable {
    /// Nanoseconds, by thread id.
    private var delays: [String: UInt64] = [:]

    /// Reads them now. Processes that are gone, and a kernel that does not count, give nothing.
    public init(of processes: [pid_t]) {
        for process in processes {
            for thread in (try? directoryNames("/proc/\(process)/task")) ?? [] {
                let words = (try? readText("/proc/\(process)/task/\(thread)/schedstat", limit: 256))?.split(
                    separator: " ")
                if let words, words.count >= 2, let delay = UInt64(words[1]) { delays[thread] = delay }
            }
        }
    }

    /// What the thread that waited longest has waited since then.
    public func longest(since earlier: RunDelays) -> Duration {
        let longest = delays.reduce(UInt64(0)) { most, thread in
            guard let before = earlier.delays[thread.key], thread.value > before else { return most }
            return max(most, thread.value - before)
        }
        return .nanoseconds(Int64(clamping: longest))
    }
}
