/// Whether a pod has been idle for so long that memory which it can do without should go back to the host.
///
/// Times are nanoseconds.
struct IdleWatch {
    /// The part of one CPU that the containers of an idle pod use at most.
    static let busyPart: UInt64 = 20
    /// A pod that stays idle is asked again, since one that does little may fill its page cache too: after so many times the limit.
    static let repetition: UInt64 = 10

    let limit: UInt64
    private var last: (cpu: UInt64, time: UInt64)?
    private var due: UInt64 = 0

    /// - Parameter limit: how long a pod must have been idle.
    init(limit: UInt64) { self.limit = limit }

    /// Takes what the containers have used so far.
    ///
    /// - Parameters:
    ///   - cpu: time of all CPUs. Less than before: containers have come and gone, as in a busy pod.
    ///   - now: monotonic.
    /// - Returns: whether memory should go back now.
    mutating func isDue(cpu: UInt64, at now: UInt64) -> Bool {
        defer { last = (cpu, now) }
        guard let last, cpu >= last.cpu, cpu - last.cpu <= (now - last.time) / Self.busyPart else {
            due = now + limit
            return false
        }
        if now < due { return false }
        due = now + limit * Self.repetition
        return true
    }
}
