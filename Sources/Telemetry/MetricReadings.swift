/// The values of metrics at one moment.
public struct MetricReadings: Sendable {
    enum Value: Sendable, Equatable {
        case number(Double)
        case histogram(Histogram)
    }

    struct Sample: Sendable, Equatable {
        /// In the order of the family's labels.
        var labels: [String]
        var value: Value
    }

    private(set) var samples: [String: [Sample]] = [:]

    public init() {}

    /// - Parameter labels: the values of the family's labels, in their order.
    public mutating func add(_ family: MetricFamily, _ labels: [String], _ value: Double) {
        add(family, labels, .number(value))
    }

    public mutating func add(_ family: MetricFamily, _ labels: [String], _ value: UInt64) {
        add(family, labels, .number(Double(value)))
    }

    public mutating func add(_ family: MetricFamily, _ labels: [String], _ value: Histogram) {
        add(family, labels, .histogram(value))
    }

    mutating func add(_ family: MetricFamily, _ labels: [String], _ value: Value) {
        precondition(labels.count == family.labels.count, "\(family.name): labels \(labels)")
        samples[family.name, default: []].append(Sample(labels: labels, value: value))
    }

    /// Adds what another has.
    public mutating func add(_ other: MetricReadings) {
        samples.merge(other.samples) { $0 + $1 }
    }
}
