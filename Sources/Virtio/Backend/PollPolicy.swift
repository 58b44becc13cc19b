/// Decides how a worker waits for the guest's next request: asleep until it is kicked, or looking.
///
/// A guest that waits for one answer after another asks again within microseconds, and a kick and a wake-up may take
/// longer than all the rest. Whether looking is better depends on the host: where every processor is taken, who looks
/// keeps the very thread from running that would bring the next request. So both are measured by what counts, the time
/// from an answer to the next request: looking is tried now and then where the waits are short, kept while it makes them
/// shorter, and given up when it doesn't or when somebody else wants the processor.
struct PollPolicy {
    /// A wait that is longer is slept through, nanoseconds.
    static let longest: UInt64 = 400_000
    /// Waits between two decisions.
    static let epoch = 32
    /// Epochs of looking until sleep is measured again.
    private static let term = 32
    /// Epochs of sleep after a trial that brought nothing; twice as many each time, up to the second.
    private static let shortBreak = 4
    private static let longBreak = 256

    /// How to wait now.
    private(set) var looks = false
    private var waits = 0
    private var sum: UInt64 = 0
    private var disturbances = 0
    /// The mean wait of the last epoch asleep, nanoseconds.
    private var asleep: UInt64 = .max
    private var epochsLeft = 0
    private var pause = Self.shortBreak

    /// Learns from a wait.
    ///
    /// - Parameters:
    ///   - nanoseconds: how long it was, until a request was there or until the worker was called for something else.
    ///   - disturbed: another thread had the processor while this one looked.
    mutating func note(_ nanoseconds: UInt64, disturbed: Bool = false) {
        waits += 1
        // The guest's own pauses say nothing: a long one counts as just too long.
        sum &+= min(nanoseconds, 2 * Self.longest)
        if disturbed { disturbances += 1 }
        guard waits == Self.epoch else { return }
        let mean = sum / UInt64(Self.epoch)
        looks ? notePolling(mean) : noteSleep(mean)
        waits = 0
        sum = 0
        disturbances = 0
    }

    private mutating func noteSleep(_ mean: UInt64) {
        asleep = mean
        epochsLeft -= 1
        if epochsLeft <= 0, mean < Self.longest {
            looks = true
            epochsLeft = Self.term
        }
    }

    private mutating func notePolling(_ mean: UInt64) {
        epochsLeft -= 1
        // By a twentieth at least, or it is not worth a processor.
        if mean / 19 >= asleep / 20 || disturbances > Self.epoch / 8 {
            looks = false
            epochsLeft = pause
            pause = min(2 * pause, Self.longBreak)
        } else {
            pause = Self.shortBreak
            if epochsLeft <= 0 { looks = false }
        }
    }
}
