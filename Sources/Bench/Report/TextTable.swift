/// The report as a table for a terminal.
extension BenchReport {
    public func table() -> String {
        var lines = [title, ""]
        lines += Self.aligned(rows())
        lines += ["", "median (minimum–maximum)" + (sides.count > 1 ? "; × of each round, above 1 is better" : "")]
        lines += facts.map { "\($0.name): \($0.value)" }
        return lines.joined(separator: "\n")
    }

    /// The header, then a row for each comparison.
    private func rows() -> [[String]] {
        let header = [""] + sides + sides.dropFirst().map { "× \($0)" }
        return [header]
            + comparisons.map { comparison in
                ["\(comparison.name), \(comparison.unit)"]
                    + comparison.sides.map { Figures.range($0, Figures.short) }
                    + sides.indices.dropFirst().map { side in
                        comparison.ratios(to: side).map { Figures.range($0, Figures.ratio) } ?? "–"
                    }
            }
    }

    /// Pads the columns to equal widths. The first column is aligned left, the others right.
    static func aligned(_ rows: [[String]]) -> [String] {
        let columns = rows.map(\.count).max() ?? 0
        let widths = (0..<columns).map { column in rows.map { column < $0.count ? $0[column].count : 0 }.max() ?? 0 }
        return rows.map { row in
            var line = ""
            for (column, cell) in row.enumerated() {
                let padding = String(repeating: " ", count: widths[column] - cell.count)
                line += column == 0 ? cell + padding : "  " + padding + cell
            }
            return line
        }
    }
}
