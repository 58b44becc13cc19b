/// Decides how a worker waits for the guest's next request: it sleeps until it is kicked, or it polls.
///
/// A guest that waits for one reply after another sends its next request within microseconds. Then a kick and a wake-up can
/// take longer than the request itself. Polling is not always faster: where every CPU of the host is busy, a worker that
/// polls takes the CPU from the vCPU thread that would send the next request.
///
/// So the policy measures both. It counts the time from a reply to the next request. It tries polling now and then while
/// the waits are short, keeps polling while that makes them shorter, and stops when it does not or when another thread
/// wants the CPU.
struct PollPolicy {
    /// The longest wait that a worker polls through, nanoseconds.
    static let longest: UInt64 = 400_000
    /// Two steps of polling that are further apart mean that another thread had the CPU, nanoseconds.
    static let preemption: UInt64 = 50_000
    /// Waits between two decisions.
    static let epoch = 32
    /// Epochs of polling after which sleeping is measured again.
    private static let pollingEpochs = 32
    /// Epochs of sleeping after a trial that gained nothing. The number doubles each time, up to the maximum.
    private static let minimumBackoff = 4
    private static let maximumBackoff = 256

    /// Whether the worker polls now.
    private(set) var isPolling = false
    private var waits = 0
    private var sum: UInt64 = 0
    private var preemptions = 0
    /// The mean wait of the last epoch of sleeping, nanoseconds.
    private var sleepingMean: UInt64 = .max
    private var epochsLeft = 0
    private var backoff = Self.minimumBackoff

    /// Records a wait.
    ///
    /// - Parameters:
    ///   - nanoseconds: the time until there was a request, or until the worker was called for something else.
    ///   - preempted: another thread ran on this CPU while the worker polled.
    mutating func record(_ nanoseconds: UInt64, preempted: Bool = false) {
        waits += 1
        // Pauses of the guest say nothing about the host: a long one counts as just too long.
        sum &+= min(nanoseconds, 2 * Self.longest)
        if preempted { preemptions += 1 }
        guard waits == Self.epoch else { return }
        let mean = sum / UInt64(Self.epoch)
        isPolling ? endPollingEpoch(mean) : endSleepingEpoch(mean)
        waits = 0
        sum = 0
        preemptions = 0
    }

    private mutating func endSleepingEpoch(_ mean: UInt64) {
        sleepingMean = mean
        epochsLeft -= 1
        if epochsLeft <= 0, mean < Self.longest {
            isPolling = true
            epochsLeft = Self.pollingEpochs
        }
    }

    private mutating func endPollingEpoch(_ mean: UInt64) {
        epochsLeft -= 1
        // Polling must shorten the mean wait by a twentieth, or it is not worth a CPU.
        if mean / 19 >= sleepingMean / 20 || preemptions > Self.epoch / 8 {
            isPolling = false
            epochsLeft = backoff
            backoff = min(2 * backoff, Self.maximumBackoff)
        } else {
            backoff = Self.minimumBackoff
            if epochsLeft <= 0 { isPolling = false }
        }
    }
}
