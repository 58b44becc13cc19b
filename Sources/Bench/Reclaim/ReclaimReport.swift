/// The results of `martlet bench reclaim`.
public struct ReclaimReport: Sendable, Equatable, Codable {
    /// One use of memory by a pod. All sizes are bytes of the host.
    public struct Row: Sendable, Equatable, Codable {
        /// `martlet (kvm)`.
        public var side: String
        /// `anonymous` or `cache`.
        public var use: String
        /// Before, at most, and some seconds after the use.
        public var before: UInt64
        public var peak: UInt64
        public var after: UInt64
        /// After how many seconds nine tenths were back; nil: they were not.
        public var secondsUntilMost: Double?

        public init(
            side: String, use: String, before: UInt64, peak: UInt64, after: UInt64, secondsUntilMost: Double? = nil
        ) {
            (self.side, self.use) = (side, use)
            (self.before, self.peak, self.after) = (before, peak, after)
            self.secondsUntilMost = secondsUntilMost
        }

        /// The part of what the use took that the host has again, 0 to 1.
        public var returned: Double {
            guard peak > before else { return 0 }
            let kept = after > before ? Double(after - before) : 0
            return max(0, 1 - kept / Double(peak - before))
        }

        private enum CodingKeys: String, CodingKey {
            case side, use
            case returned = "returned_fraction"
            case before = "before_bytes"
            case peak = "peak_bytes"
            case after = "after_bytes"
            case secondsUntilMost = "seconds_until_most"
        }

        public init(from decoder: any Decoder) throws {
            let fields = try decoder.container(keyedBy: CodingKeys.self)
            side = try fields.decode(String.self, forKey: .side)
            use = try fields.decode(String.self, forKey: .use)
            before = try fields.decode(UInt64.self, forKey: .before)
            peak = try fields.decode(UInt64.self, forKey: .peak)
            after = try fields.decode(UInt64.self, forKey: .after)
            secondsUntilMost = try fields.decodeIfPresent(Double.self, forKey: .secondsUntilMost)
        }

        public func encode(to encoder: any Encoder) throws {
            var fields = encoder.container(keyedBy: CodingKeys.self)
            try fields.encode(side, forKey: .side)
            try fields.encode(use, forKey: .use)
            try fields.encode(before, forKey: .before)
            try fields.encode(peak, forKey: .peak)
            try fields.encode(after, forKey: .after)
            try fields.encodeIfPresent(secondsUntilMost, forKey: .secondsUntilMost)
            // For readers without this program.
            try fields.encode(returned, forKey: .returned)
        }
    }

    /// A side that could not be measured.
    public struct Missing: Sendable, Equatable, Codable {
        public var side: String
        public var reason: String

        public init(_ side: String, _ reason: String) { (self.side, self.reason) = (side, reason) }
    }

    public var command: String
    public var facts: [BenchReport.Fact]
    /// How long memory may take to come back, seconds.
    public var seconds: Int
    public var rows: [Row]
    public var missing: [Missing]
    /// The least of all rows.
    public private(set) var returned: Double

    private enum CodingKeys: String, CodingKey {
        case command, facts, seconds, rows, missing
        case returned = "returned_fraction"
    }

    public init(command: String, facts: [BenchReport.Fact], seconds: Int, rows: [Row], missing: [Missing]) {
        (self.command, self.facts, self.seconds) = (command, facts, seconds)
        (self.rows, self.missing) = (rows, missing)
        returned = rows.map(\.returned).min() ?? 0
    }

    /// The report as JSON, the same bytes for the same report.
    public func json() throws -> String { try jsonText(self) }

    /// The report as a table for a terminal.
    public func table() -> String {
        func mebibytes(_ bytes: UInt64) -> String { Figures.short(Double(bytes) / 1_048_576) }
        let header = ["side", "use", "before, MiB", "peak", "after \(seconds) s", "returned", "0.9 after"]
        let cells = rows.map { row in
            [
                row.side, row.use, mebibytes(row.before), mebibytes(row.peak), mebibytes(row.after),
                Figures.ratio(row.returned), row.secondsUntilMost.map { "\(Figures.fixed($0, 1)) s" } ?? "–",
            ]
        }
        var lines = ["Memory that goes back to the host", ""] + BenchReport.aligned([header] + cells)
        lines += [
            "", "anonymous: a process takes memory and ends; cache: a file is read",
            "host memory: proportional set size of the pod's processes, and all blocks of the guest's memory file",
        ]
        lines += missing.map { "not measured: \($0.side): \($0.reason)" }
        return (lines + facts.map { "\($0.name): \($0.value)" }).joined(separator: "\n")
    }
}
