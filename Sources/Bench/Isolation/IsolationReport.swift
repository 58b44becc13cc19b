import FoundationEssentials
import LinuxSystem

/// The results of `martlet bench isolation`.
public struct IsolationReport: Sendable, Equatable, Codable {
    /// What a runtime gave for one measure.
    public struct Series: Sendable, Equatable, Codable {
        /// The runtime's place in `runtimes`.
        public var runtime: Int
        /// All that were measured, in the order of the rounds. None is left out.
        public var values: [Double]
        /// The round of each value, from 1 on.
        public var rounds: [Int]
        /// What the warm-up round gave; it counts nowhere.
        public var warmUp: Double?
        /// Why there is no figure, or why there are no more.
        public var failure: String?
        public var estimate: Estimate?
        /// How much it costs compared with the baseline: above 1, more. Rates are inverted.
        public var cost: Estimate?
        /// The median of the second half of the rounds divided by that of the first.
        public var drift: Double?

        private enum CodingKeys: String, CodingKey {
            case runtime, values, rounds, failure, estimate, cost, drift
            case warmUp = "warm_up"
        }
    }

    public struct Measure: Sendable, Equatable, Codable {
        public var key: String
        public var name: String
        public var unit: String
        public var better: Comparison.Direction
        public var series: [Series]
    }

    /// A runtime that could not be measured.
    public struct Missing: Sendable, Equatable, Codable {
        public var name: String
        public var reason: String
        public init(_ name: String, _ reason: String) {
            self.name = name
            self.reason = reason
        }
    }

    /// Of this form of the report.
    public var version = 1
    public var title = "What isolation costs on this machine"
    public var command: String
    /// ISO 8601, UTC.
    public var date: String
    public var runtimes: [OCIRuntime]
    /// The runtime that the others are compared with: its place in `runtimes`.
    public var baseline: Int
    public var missing: [Missing]
    /// Above all figures.
    public var banner: String?
    public var warnings: [String]
    public var facts: [BenchReport.Fact]
    /// How many rounds there were after the warm-up round.
    public var rounds: Int
    public var measures: [Measure]

    /// The report as JSON.
    public func json() throws -> String { try jsonText(self) }

    /// Reads a report that `json` has written.
    ///
    /// - Parameter path: its file.
    /// - Throws: `BenchError` with the file, where it can't be read or is something else.
    public static func read(_ path: String) throws -> IsolationReport {
        do {
            let text = try readText(path, limit: 256 << 20)
            let report = try JSONDecoder().decode(IsolationReport.self, from: Data(text.utf8))
            try report.check()
            return report
        } catch { throw BenchError("\(path): not a report of martlet bench isolation: \(error)") }
    }

    private func check() throws {
        guard version == 1 else { throw BenchError("version \(version), not 1") }
        guard runtimes.isEmpty || runtimes.indices.contains(baseline) else { throw BenchError("baseline \(baseline)") }
        for measure in measures {
            for series in measure.series {
                guard runtimes.indices.contains(series.runtime), series.values.count == series.rounds.count,
                    series.values.isEmpty || Samples(series.values) != nil
                else { throw BenchError("measures.\(measure.key): a series that can't be") }
            }
        }
    }

    /// The series of a runtime.
    func series(_ measure: Measure, _ runtime: Int) -> Series? { measure.series.first { $0.runtime == runtime } }
}

extension IsolationReport.Series {
    init(runtime: Int, values: [(round: Int, value: Double)], warmUp: Double? = nil, failure: String? = nil) {
        self.runtime = runtime
        self.values = values.map(\.value)
        self.rounds = values.map(\.round)
        self.warmUp = warmUp
        self.failure = failure
        guard let samples = Samples(self.values) else { return }
        estimate = Bootstrap.median(samples)
        let half = samples.values.count / 2
        if half >= 3, let first = Samples(Array(samples.values.prefix(half))),
            let second = Samples(Array(samples.values.suffix(half))), first.median > 0
        {
            drift = second.median / first.median
        }
    }

    /// Sets the cost compared with the baseline, by the rounds that both have.
    mutating func compare(with baseline: Self, better: Comparison.Direction) {
        let others = Dictionary(zip(baseline.rounds, baseline.values)) { first, _ in first }
        let both = zip(rounds, values).compactMap { round, value in others[round].map { (value, $0) } }
        guard let own = Samples(both.map(\.0)), let other = Samples(both.map(\.1)) else { return }
        cost = better == .lower ? Bootstrap.pairedRatio(own, other) : Bootstrap.pairedRatio(other, own)
    }
}
