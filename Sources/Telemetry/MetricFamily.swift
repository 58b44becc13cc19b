/// A metric that a pod or the host is asked for: its name, and what its samples have in common.
public struct MetricFamily: Sendable, Equatable {
    public enum Kind: String, Sendable {
        /// Grows from the moment at which its process began.
        case counter
        case gauge
        case histogram
    }

    /// Without the suffix `_total` of a counter; it ends with the unit where there is one.
    public let name: String
    public let kind: Kind
    /// What a sample says beside the pod, in this order. Each label has few values, or is the id of a container.
    public let labels: [String]
    /// `seconds` or `bytes`; empty: a number.
    public let unit: String
    /// One line.
    public let help: String
    /// The upper bounds of a histogram's buckets, without the last one, which has none.
    public let buckets: [Double]

    init(
        _ kind: Kind, _ name: String, _ labels: [String], _ help: String, buckets: [Double] = []
    ) {
        self.name = "martlet_\(name)"
        self.kind = kind
        self.labels = labels
        self.unit = ["seconds", "bytes"].first { name.hasSuffix("_\($0)") } ?? ""
        self.help = help
        self.buckets = buckets
    }

    /// The name that queries have: that of a counter ends with `_total`.
    public var queryName: String { kind == .counter ? "\(name)_total" : name }
}

/// What has been observed: how many values, and their sum; by bucket.
public struct Histogram: Sendable, Equatable {
    /// Of each bucket by itself, one more than there are bounds.
    public private(set) var counts: [UInt64]
    public private(set) var sum: Double

    /// - Parameter buckets: upper bounds, ascending.
    public init(buckets: [Double]) {
        counts = [UInt64](repeating: 0, count: buckets.count + 1)
        sum = 0
    }

    /// - Parameter counts: of each bucket by itself, one more than there are bounds.
    public init(counts: [UInt64], sum: Double) { (self.counts, self.sum) = (counts, sum) }

    /// - Parameter buckets: those that the histogram was made with.
    public mutating func observe(_ value: Double, buckets: [Double]) {
        counts[buckets.firstIndex { value <= $0 } ?? buckets.count] += 1
        sum += value
    }
}
