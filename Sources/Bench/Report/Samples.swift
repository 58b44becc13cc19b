/// The measured values of several runs, in the order of the runs.
public struct Samples: Sendable, Equatable, Codable {
    public let values: [Double]

    /// Returns nil when there are no values, or one is not a finite number.
    public init?(_ values: [Double]) {
        guard !values.isEmpty, values.allSatisfy(\.isFinite) else { return nil }
        self.values = values
    }

    private var sorted: [Double] { values.sorted() }

    /// The median; for an even number of values, the mean of the two in the middle.
    public var median: Double {
        let sorted = sorted
        let middle = sorted.count / 2
        return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
    }

    public var minimum: Double { values.reduce(values[0], min) }
    public var maximum: Double { values.reduce(values[0], max) }

    /// The range of the values as a fraction of the median: 0.2 is 20 %. It is 0 when the median is 0.
    public var spread: Double { median == 0 ? 0 : (maximum - minimum) / abs(median) }

    private enum CodingKeys: String, CodingKey { case values, median, minimum, maximum, spread }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(values, forKey: .values)
        // For readers without this program.
        try container.encode(median, forKey: .median)
        try container.encode(minimum, forKey: .minimum)
        try container.encode(maximum, forKey: .maximum)
        try container.encode(spread, forKey: .spread)
    }

    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        guard let samples = Samples(try container.decode([Double].self, forKey: .values)) else {
            throw DecodingError.dataCorruptedError(
                forKey: .values, in: container, debugDescription: "no values, or one that is not a finite number")
        }
        self = samples
    }
}
