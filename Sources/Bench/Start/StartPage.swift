/// The report as an HTML page, with a chart of the phases and one of the comparison.
extension StartReport {
    public func page() -> String {
        let sides = BenchReport(
            title: title, command: command, sides: Self.sides, facts: [],
            comparisons: [start, startOfTinyGuest].compactMap { $0 })
        return Markup.page(
            title: title, command: command,
            body: """
                \(PhaseChart(phases: phases, total: run).svg())
                \(Markup.table(phaseRows))
                \(sides.comparisons.isEmpty ? "" : BarChart(report: sides).svg() + Markup.table(comparisonRows))
                \(Markup.table(memoryRows))
                \([touchedRows, densityRows, templateRows, countRows].filter { !$0.isEmpty }.map { Markup.table($0) }.joined())
                <p class="note">Medians; in the tables with minimum and maximum. The sides of the comparison took turns.</p>
                \(Markup.table(facts.map { [$0.name, $0.value] }, style: "facts", hasHeader: false))
                """)
    }
}

/// A bar from the start of the command to its end, divided into its phases.
struct PhaseChart {
    let phases: [StartReport.Phase]
    let total: Samples

    private static let width = 860.0
    private static let top = 24.0
    private static let row = 22.0

    func svg() -> String {
        let sum = phases.reduce(0) { $0 + max(0, $1.samples.median) }
        let scale = sum > 0 ? Self.width / sum : 0
        let height = Self.top + 20 + Double(phases.count) * Self.row
        func number(_ value: Double) -> String { Figures.fixed(value, 1) }
        var parts = ["<svg viewBox=\"0 0 \(number(Self.width)) \(number(height))\" role=\"img\" aria-label=\"phases\">"]
        var left = 0.0
        for (index, phase) in phases.enumerated() {
            let length = max(0, phase.samples.median) * scale
            let style = "side\(index % BarChart.colours)"
            let y = Self.top + 20 + Double(index) * Self.row
            let label = "\(phase.name): \(Figures.range(phase.samples, Figures.short)) ms"
            parts += [
                "<rect class=\"\(style)\" x=\"\(number(left))\" y=\"0\" width=\"\(number(length))\" height=\"\(number(Self.top))\"/>",
                "<rect class=\"\(style)\" x=\"\(number(min(left, Self.width - 420)))\" y=\"\(number(y))\" "
                    + "width=\"\(number(max(length, 1)))\" height=\"12\"/>",
                "<text class=\"figure\" x=\"\(number(min(left, Self.width - 420) + max(length, 1) + 8))\" "
                    + "y=\"\(number(y + 10))\">\(Markup.escape(label))</text>",
            ]
            left += length
        }
        return (parts + ["</svg>"]).joined(separator: "\n")
    }
}

extension Markup {
    /// A table. The first row is the header, unless `hasHeader` is false.
    static func table(_ rows: [[String]], style: String = "", hasHeader: Bool = true) -> String {
        if rows.isEmpty { return "" }
        let lines = rows.enumerated().map { index, row in
            let tag = hasHeader && index == 0 ? "th" : "td"
            return "<tr>" + row.map { "<\(tag)>\(escape($0))</\(tag)>" }.joined() + "</tr>"
        }
        return "<table class=\"\(style)\">\n\(lines.joined(separator: "\n"))\n</table>"
    }
}
