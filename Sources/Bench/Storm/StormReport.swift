/// The results of `martlet bench storm`.
public struct StormReport: Sendable, Equatable, Codable {
    /// One storm.
    public struct Row: Sendable, Equatable, Codable {
        public var name: String
        public var summary: String
        /// Of `exec true` in the other pod, milliseconds.
        public var latency: Samples
        /// The most that the storming pod's host processes used at a time, without the guest's memory.
        public var memoryMiB: Int
        public var threads: Int
        /// What they may use, by the pod's cgroup, without the guest's memory. nil: there is no limit.
        public var memoryLimitMiB: Int?
        public var threadLimit: Int?

        private enum CodingKeys: String, CodingKey {
            case name, summary, threads
            case latency = "latency_ms"
            case memoryMiB = "memory_mib"
            case memoryLimitMiB = "memory_limit_mib"
            case threadLimit = "thread_limit"
        }
    }

    public var command: String
    public var facts: [BenchReport.Fact]
    public var rows: [Row]

    /// The median latency in a storm divided by that in another; nil: the other was not measured.
    func ratio(_ row: Row, to name: String) -> Double? {
        guard let base = rows.first(where: { $0.name == name })?.latency.median, base > 0 else { return nil }
        return row.latency.median / base
    }

    /// The report as JSON, the same bytes for the same report.
    public func json() throws -> String { try jsonText(self) }

    /// The report as a table for a terminal.
    public func table() -> String {
        let bases = [Storm.quiet.name, Storm.busy.name]
        let header = ["storm", "exec true, ms"] + bases.map { "/ \($0)" } + ["host memory, MiB", "threads"]
        let cells = rows.map { row in
            [row.name, Figures.range(row.latency, Figures.short)]
                + bases.map { base in ratio(row, to: base).map(Figures.ratio) ?? "–" }
                + [Self.of(row.memoryMiB, row.memoryLimitMiB), Self.of(row.threads, row.threadLimit)]
        }
        var lines = ["Latency of a pod while another storms", ""] + BenchReport.aligned([header] + cells)
        lines += [
            "",
            "median (minimum–maximum); / is the ratio of medians; host memory is without the guest's",
        ]
        lines += rows.map { "\($0.name): \($0.summary)" } + facts.map { "\($0.name): \($0.value)" }
        return lines.joined(separator: "\n")
    }

    private static func of(_ value: Int, _ limit: Int?) -> String { "\(value) of \(limit.map { "\($0)" } ?? "any")" }
}
