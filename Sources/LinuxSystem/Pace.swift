/// A token bucket: how often something may happen, where a guest decides how often it is asked for.
public struct Pace: Sendable {
    private let capacity: Double
    private let perSecond: Double
    private var left: Double
    private var last = ContinuousClock.Instant?.none
    /// How many times `admit` has refused since it last let one through.
    public private(set) var refused = 0

    /// - Parameters:
    ///   - burst: how often at once, after a while of rest.
    ///   - perSecond: how often in the long run.
    public init(burst: Int, perSecond: Double) {
        (capacity, self.perSecond) = (Double(burst), perSecond)
        left = capacity
    }

    private mutating func refill(_ now: ContinuousClock.Instant) {
        if let last { left = min(capacity, left + max(0, (now - last) / .seconds(1)) * perSecond) }
        last = now
    }

    /// Counts one time, of something that is done later when it comes too often.
    ///
    /// - Returns: how long to wait until the next one.
    public mutating func take(at now: ContinuousClock.Instant = .now) -> Duration {
        refill(now)
        left -= 1
        return left >= 1 ? .zero : .seconds((1 - left) / perSecond)
    }

    /// Counts one time, of something that is left out when it comes too often.
    ///
    /// - Returns: nil: leave it out. Otherwise how many were left out just before.
    public mutating func admit(at now: ContinuousClock.Instant = .now) -> Int? {
        refill(now)
        guard left >= 1 else {
            refused += 1
            return nil
        }
        left -= 1
        defer { refused = 0 }
        return refused
    }
}
