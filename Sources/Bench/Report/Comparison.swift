/// One figure of several sides, measured in turns: the value number i of each side comes from round i.
public struct Comparison: Sendable, Equatable, Codable {
    /// Which values are the good ones.
    public enum Better: String, Sendable, Codable { case higher, lower }

    /// What was measured: `sequential read`.
    public var name: String
    /// `MiB/s`, `ms`.
    public var unit: String
    public var better: Better
    /// Of each side, in the order of the report's sides.
    public var sides: [Samples]

    public init(_ name: String, unit: String, better: Better, sides: [Samples]) {
        self.name = name
        self.unit = unit
        self.better = better
        self.sides = sides
    }

    /// How much better the first side was than side `other`, round by round: 1.0 is as good, 2.0 is twice as good. What
    /// disturbs a machine for minutes disturbs both sides of a round, and is not in here. Nil without a value other
    /// than 0.
    public func ratios(to other: Int) -> Samples? {
        guard sides.indices.contains(other), !sides.isEmpty else { return nil }
        return Samples(
            zip(sides[0].values, sides[other].values).map { ours, theirs in
                better == .higher ? ours / theirs : theirs / ours
            })
    }
}
