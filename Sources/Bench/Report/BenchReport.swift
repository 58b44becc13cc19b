import FoundationEssentials

/// What a bench has found, as a value: it becomes a table for a terminal, JSON, or a page with a picture.
public struct BenchReport: Sendable, Equatable, Codable {
    /// Something worth knowing beside the figures: the machine, a version.
    public struct Fact: Sendable, Equatable, Codable {
        public var name: String
        public var value: String
        public init(_ name: String, _ value: String) {
            self.name = name
            self.value = value
        }
    }

    public var title: String
    /// What was run.
    public var command: String
    /// Who was compared; the first is the one that the others are compared with.
    public var sides: [String]
    public var facts: [Fact]
    public var comparisons: [Comparison]

    public init(title: String, command: String, sides: [String], facts: [Fact], comparisons: [Comparison]) {
        self.title = title
        self.command = command
        self.sides = sides
        self.facts = facts
        self.comparisons = comparisons
    }

    /// The report as JSON, the same bytes for the same report.
    public func json() throws -> String { try jsonText(self) }
}

/// A report as JSON for people and programs, its keys in order.
func jsonText(_ report: some Encodable) throws -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    return String(decoding: try encoder.encode(report), as: UTF8.self)
}
