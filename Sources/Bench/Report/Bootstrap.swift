/// A median, or a ratio of medians, with its interval.
public struct Estimate: Sendable, Equatable, Codable {
    public var median: Double
    public var low: Double
    public var high: Double

    public init(median: Double, low: Double, high: Double) {
        self.median = median
        self.low = low
        self.high = high
    }

    /// Whether the interval is within ±`tolerance` of the median: 0.05 is 5 %.
    func isWithin(_ tolerance: Double) -> Bool {
        high - median <= tolerance * abs(median) && median - low <= tolerance * abs(median)
    }

    /// Whether the interval contains a value.
    func contains(_ value: Double) -> Bool { low <= value && value <= high }
}

/// Intervals of 95 % for medians and their ratios, by the percentile bootstrap (B. Efron, R. Tibshirani: An Introduction to the
/// Bootstrap, chapter 13). The same samples give the same interval: the random numbers have a fixed seed.
///
/// With fewer than six samples the interval is their whole range. Even that contains the median of what was sampled less often
/// than 95 times of 100: 1 - 2 · 0.5^n, 75 % with three samples (order statistics, no assumption about the distribution).
public enum Bootstrap {
    static let fewest = 6
    static let resamples = 1000
    private static let tail = 0.025

    /// The median of samples.
    public static func median(_ samples: Samples) -> Estimate {
        guard samples.values.count >= fewest else {
            return Estimate(median: samples.median, low: samples.minimum, high: samples.maximum)
        }
        var random = SplitMix64()
        var sample = Resample(samples.values)
        var medians: [Double] = []
        for _ in 0..<resamples {
            sample.clear()
            for _ in samples.values { sample.add(random.index(below: samples.values.count)) }
            medians.append(sample.median)
        }
        return interval(samples.median, medians)
    }

    /// The ratio of the medians of two series of which values with the same index are of the same round: rounds are drawn, so that
    /// what disturbs both sides of a round does not widen the interval.
    ///
    /// - Returns: nil when the counts differ, or a median below is not above 0.
    public static func pairedRatio(_ above: Samples, _ below: Samples) -> Estimate? {
        let count = above.values.count
        guard count == below.values.count, below.minimum > 0 else { return nil }
        let ratio = above.median / below.median
        if count < fewest {
            let ratios = zip(above.values, below.values).map { $0 / $1 }
            return Estimate(
                median: ratio, low: ratios.reduce(ratio, min), high: ratios.reduce(ratio, max))
        }
        return interval(
            ratio,
            ratios(above, below) { first, second, random in
                for _ in 0..<count {
                    let index = random.index(below: count)
                    first.add(index)
                    second.add(index)
                }
            })
    }

    /// The ratios of the medians of values that `draw` draws again and again.
    private static func ratios(
        _ above: Samples, _ below: Samples, _ draw: (inout Resample, inout Resample, inout SplitMix64) -> Void
    ) -> [Double] {
        var random = SplitMix64()
        var first = Resample(above.values)
        var second = Resample(below.values)
        return (0..<resamples).map { _ in
            first.clear()
            second.clear()
            draw(&first, &second, &random)
            return first.median / second.median
        }
    }

    /// Whether two series of these sizes can differ beyond chance at all: whether it happens less than 5 times of 100 that all values of
    /// one are above those of the other, where both are of the same kind (the permutation test's least probability). Three and three
    /// can't, four and four can.
    static func canTell(_ first: Int, _ second: Int) -> Bool {
        var arrangements = 1.0
        for place in 0..<min(first, second) { arrangements *= Double(first + second - place) / Double(place + 1) }
        return 2 / arrangements <= 2 * tail
    }

    /// The ratio of the medians of two series that have nothing to do with each other, such as those of two runs of a bench.
    ///
    /// - Returns: nil when a value below is not above 0.
    public static func ratio(_ above: Samples, _ below: Samples) -> Estimate? {
        guard below.minimum > 0 else { return nil }
        let ratio = above.median / below.median
        if min(above.values.count, below.values.count) < fewest {
            return Estimate(
                median: ratio, low: above.minimum / below.maximum, high: above.maximum / below.minimum)
        }
        return interval(
            ratio,
            ratios(above, below) { first, second, random in
                for _ in above.values { first.add(random.index(below: above.values.count)) }
                for _ in below.values { second.add(random.index(below: below.values.count)) }
            })
    }

    private static func interval(_ value: Double, _ resampled: [Double]) -> Estimate {
        let sorted = resampled.sorted()
        let skipped = Int((Double(sorted.count) * tail).rounded())
        // The median of the samples is in the interval also where few values take most of the resamples.
        return Estimate(
            median: value, low: min(value, sorted[skipped]), high: max(value, sorted[sorted.count - 1 - skipped]))
    }

    /// Values drawn with replacement. Their median takes one pass.
    private struct Resample {
        private let sorted: [Double]
        /// The place in `sorted` of each value, by its index.
        private let places: [Int]
        private var counts: [Int]
        private var total = 0

        init(_ values: [Double]) {
            let order = values.indices.sorted { values[$0] < values[$1] }
            sorted = order.map { values[$0] }
            var places = [Int](repeating: 0, count: values.count)
            for (place, index) in order.enumerated() { places[index] = place }
            self.places = places
            counts = [Int](repeating: 0, count: values.count)
        }

        mutating func clear() {
            for place in counts.indices { counts[place] = 0 }
            total = 0
        }

        mutating func add(_ index: Int) {
            counts[places[index]] += 1
            total += 1
        }

        var median: Double { total % 2 == 1 ? value(total / 2) : (value(total / 2 - 1) + value(total / 2)) / 2 }

        private func value(_ rank: Int) -> Double {
            var seen = 0
            for (place, count) in counts.enumerated() {
                seen += count
                if seen > rank { return sorted[place] }
            }
            return sorted[sorted.count - 1]
        }
    }
}

/// Sebastiano Vigna's splitmix64, with a fixed seed.
private struct SplitMix64 {
    private var state: UInt64 = 0x6d61_7274_6c65_7400

    mutating func index(below limit: Int) -> Int {
        state = state &+ 0x9e37_79b9_7f4a_7c15
        var number = state
        number = (number ^ number >> 30) &* 0xbf58_476d_1ce4_e5b9
        number = (number ^ number >> 27) &* 0x94d0_49bb_1331_11eb
        number ^= number >> 31
        return Int(number.multipliedFullWidth(by: UInt64(limit)).high)
    }
}
