import FoundationEssentials

/// The results of a bench. They can be printed as a table or JSON, or written as a page with a chart.
public struct BenchReport: Sendable, Equatable, Codable {
    /// A fact beside the figures: the host, a version.
    public struct Fact: Sendable, Equatable, Codable {
        public var name: String
        public var value: String
        public init(_ name: String, _ value: String) {
            self.name = name
            self.value = value
        }
    }

    public var title: String
    /// The command that was run.
    public var command: String
    /// What was compared. The others are compared with the first.
    public var sides: [String]
    public var facts: [Fact]
    public var comparisons: [Comparison]
    /// For each comparison by its name, how much better the first side is than the best of the others: of the medians of the
    /// rounds' ratios the smallest. nil: this bench does not tell.
    public var ratios: [String: Double]?

    public init(
        title: String, command: String, sides: [String], facts: [Fact], comparisons: [Comparison],
        ratios: [String: Double]? = nil
    ) {
        self.ratios = ratios
        self.title = title
        self.command = command
        self.sides = sides
        self.facts = facts
        self.comparisons = comparisons
    }

    /// The report as JSON, the same bytes for the same report.
    public func json() throws -> String { try jsonText(self) }
}

/// A report as indented JSON with sorted keys.
func jsonText(_ report: some Encodable) throws -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    return String(decoding: try encoder.encode(report), as: UTF8.self)
}
