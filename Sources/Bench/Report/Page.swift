/// The report as an HTML page without scripts and external resources.
extension BenchReport {
    public func page() -> String {
        Markup.page(
            title: title, command: command,
            body: """
                \(BarChart(report: self).svg())
                <p class="note">Bars are medians; the line over a bar goes from the minimum to the maximum, a dot is one run. \
                The sides took turns; × is the median of the ratios of each round, above 1 means that the first side is \
                better.</p>
                \(tables())
                """)
    }

    private func tables() -> String {
        let header = ["", "unit"] + sides + sides.dropFirst().map { "× \($0)" }
        let rows = comparisons.map { comparison in
            [comparison.name, comparison.unit]
                + comparison.sides.map { Figures.range($0, Figures.short) }
                + sides.indices.dropFirst().map { side in
                    comparison.ratios(to: side).map { Figures.range($0, Figures.ratio) } ?? "–"
                }
        }
        let body = rows.map { "<tr>" + cells($0, "td") + "</tr>" }.joined(separator: "\n")
        let known = facts.map { "<tr>" + cells([$0.name, $0.value], "td") + "</tr>" }.joined(separator: "\n")
        return """
            <table>
            <tr>\(cells(header, "th"))</tr>
            \(body)
            </table>
            <table class="facts">
            \(known)
            </table>
            """
    }

    private func cells(_ texts: [String], _ tag: String) -> String {
        texts.map { "<\(tag)>\(Markup.escape($0))</\(tag)>" }.joined()
    }
}

enum Markup {
    /// A complete page with a title, the command and `body`.
    ///
    /// - Parameter more: rules beside those that all pages have.
    static func page(title: String, command: String, style more: String = "", body: String) -> String {
        """
        <!DOCTYPE html>
        <html lang="en">
        <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <title>\(escape(title))</title>
        <style>
        \(style)
        \(more)
        </style>
        </head>
        <body>
        <h1>\(escape(title))</h1>
        <p><code>\(escape(command))</code></p>
        \(body)
        </body>
        </html>

        """
    }

    /// Escapes text for use between tags and in attributes.
    static func escape(_ text: String) -> String {
        var result = ""
        for character in text {
            switch character {
            case "&": result += "&amp;"
            case "<": result += "&lt;"
            case ">": result += "&gt;"
            case "\"": result += "&quot;"
            default: result.append(character)
            }
        }
        return result
    }

    static let style = """
        :root { color-scheme: light dark; --ink: #1d2330; --pale: #68707f; --line: #d9dde4; --page: #ffffff;
          --side0: #2f6fdb; --side1: #e08a2e; --side2: #3a9d6b; --side3: #9a5bc4; }
        @media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --pale: #98a1b1; --line: #343b48; --page: #14171d;
          --side0: #5b93f0; --side1: #e7a35a; --side2: #58b98a; --side3: #b585dc; } }
        body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 900px;
          margin: 2rem auto; padding: 0 1rem; }
        h1 { font-size: 1.3rem; margin: 0; }
        code, .note { color: var(--pale); font-size: 13px; }
        svg { width: 100%; height: auto; margin: 1rem 0; font: 12px system-ui, sans-serif; }
        svg text { fill: var(--ink); }
        svg .name { font-weight: 600; font-size: 13px; }
        svg .unit { fill: var(--pale); }
        svg .spread { stroke: var(--ink); stroke-width: 1.2; }
        svg .run { fill: var(--ink); fill-opacity: 0.55; }
        svg .side0 { fill: var(--side0); } svg .side1 { fill: var(--side1); }
        svg .side2 { fill: var(--side2); } svg .side3 { fill: var(--side3); }
        table { border-collapse: collapse; font-size: 13px; margin: 1rem 0; font-variant-numeric: tabular-nums; }
        th, td { text-align: right; padding: 0.25rem 0.8rem 0.25rem 0; border-bottom: 1px solid var(--line); }
        th:first-child, td:first-child, .facts td { text-align: left; }
        """
}
