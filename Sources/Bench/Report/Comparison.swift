/// One figure of several sides, measured in turns: value i of each side comes from round i.
public struct Comparison: Sendable, Equatable, Codable {
    /// Whether higher or lower values are better.
    public enum Direction: String, Sendable, Codable { case higher, lower }

    /// What was measured: `sequential read`.
    public var name: String
    /// `MiB/s`, `ms`.
    public var unit: String
    public var better: Direction
    /// The samples of each side, in the order of the report's sides.
    public var sides: [Samples]

    public init(_ name: String, unit: String, better: Direction, sides: [Samples]) {
        self.name = name
        self.unit = unit
        self.better = better
        self.sides = sides
    }

    /// How much better the first side is than the best of the others: of the medians of `ratios` the smallest; nil where there is
    /// none.
    public var ratioToBest: Double? { sides.indices.dropFirst().compactMap { ratios(to: $0)?.median }.min() }

    /// How much better the first side was than side `other` in each round: 1.0 means equal, 2.0 twice as good. A disturbance that
    /// lasts for minutes affects both sides of a round, and so not the ratios.
    ///
    /// - Returns: nil when a ratio is not a finite number.
    public func ratios(to other: Int) -> Samples? {
        guard sides.indices.contains(other), !sides.isEmpty else { return nil }
        return Samples(
            zip(sides[0].values, sides[other].values).map { ours, theirs in
                better == .higher ? ours / theirs : theirs / ours
            })
    }
}
