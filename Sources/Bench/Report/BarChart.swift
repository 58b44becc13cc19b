/// The report's chart. Each comparison is a group of bars with a scale of its own. Each side has a bar for its median, a line from
/// its minimum to its maximum, and a dot for each run.
struct BarChart {
    private static let width = 860.0
    private static let labels = 190.0
    private static let figures = 200.0
    private static let bar = 18.0
    private static let gap = 6.0
    private static let group = 26.0
    private static let legend = 30.0

    let report: BenchReport

    private var groupHeight: Double { Double(report.sides.count) * (Self.bar + Self.gap) + Self.group }
    private var height: Double { Self.legend + Double(report.comparisons.count) * groupHeight }
    private var plot: Double { Self.width - Self.labels - Self.figures }

    /// An `<svg>` element that scales with its page.
    func svg() -> String {
        var parts = [
            "<svg viewBox=\"0 0 \(number(Self.width)) \(number(height))\" role=\"img\" "
                + "aria-label=\"\(Markup.escape(report.title))\">"
        ]
        parts += legend()
        for (index, comparison) in report.comparisons.enumerated() {
            parts += group(comparison, top: Self.legend + Double(index) * groupHeight)
        }
        parts.append("</svg>")
        return parts.joined(separator: "\n")
    }

    private func legend() -> [String] {
        var left = Self.labels
        var parts: [String] = []
        for (side, name) in report.sides.enumerated() {
            parts.append(rectangle(left, 6, 12, 12, "side\(side % Self.colours)"))
            parts.append(text(left + 18, 16, name, "legend"))
            left += 40 + 7.5 * Double(name.count)
        }
        return parts
    }

    private func group(_ comparison: Comparison, top: Double) -> [String] {
        let unit = comparison.unit + (comparison.better == .lower ? " (less is better)" : "")
        var parts = [
            text(0, top + 14, comparison.name, "name"), text(0, top + 30, unit, "unit"),
        ]
        let longest = comparison.sides.map(\.maximum).max() ?? 0
        let scale = longest > 0 ? plot / longest : 0
        for (side, samples) in comparison.sides.enumerated() {
            let y = top + Double(side) * (Self.bar + Self.gap)
            parts += row(samples, side, y, scale)
            let ratio = side == 0 ? nil : comparison.ratios(to: side)
            let figure = Figures.range(samples, Figures.short)
            let label = ratio.map { "\(figure)  ×\(Figures.ratio($0.median))" } ?? figure
            parts.append(text(Self.width - Self.figures + 10, y + 13, label, "figure"))
        }
        return parts
    }

    private func row(_ samples: Samples, _ side: Int, _ y: Double, _ scale: Double) -> [String] {
        func x(_ value: Double) -> Double { Self.labels + max(0, value) * scale }
        let middle = y + Self.bar / 2
        var parts = [
            rectangle(Self.labels, y, max(0, samples.median) * scale, Self.bar, "side\(side % Self.colours)"),
            line(x(samples.minimum), middle, x(samples.maximum), middle),
            line(x(samples.minimum), middle - 4, x(samples.minimum), middle + 4),
            line(x(samples.maximum), middle - 4, x(samples.maximum), middle + 4),
        ]
        parts += samples.values.map {
            "<circle class=\"run\" cx=\"\(number(x($0)))\" cy=\"\(number(middle))\" r=\"2\"/>"
        }
        return parts
    }

    // MARK: Elements

    static let colours = 4

    /// Coordinates are rounded to a tenth of a unit.
    private func number(_ value: Double) -> String { Figures.fixed(value, 1) }

    private func rectangle(_ x: Double, _ y: Double, _ width: Double, _ height: Double, _ style: String) -> String {
        "<rect class=\"\(style)\" x=\"\(number(x))\" y=\"\(number(y))\" width=\"\(number(width))\" "
            + "height=\"\(number(height))\" rx=\"2\"/>"
    }

    private func line(_ x1: Double, _ y1: Double, _ x2: Double, _ y2: Double) -> String {
        "<line class=\"spread\" x1=\"\(number(x1))\" y1=\"\(number(y1))\" x2=\"\(number(x2))\" y2=\"\(number(y2))\"/>"
    }

    private func text(_ x: Double, _ y: Double, _ content: String, _ style: String) -> String {
        "<text class=\"\(style)\" x=\"\(number(x))\" y=\"\(number(y))\">\(Markup.escape(content))</text>"
    }
}
