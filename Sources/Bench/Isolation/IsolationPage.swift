/// The report as a page that needs nothing else: no scripts, no network.
extension IsolationReport {
    /// - Parameter changes: since an earlier report, one a line; empty without one.
    public func page(changes: [String] = []) -> String {
        Markup.page(
            title: title, command: command, style: Self.style,
            body: """
                \(banner.map { "<p class=\"banner\">\(Markup.escape($0))</p>" } ?? "")
                \(list(warnings.map { "Warning: \($0)" }, "warnings"))
                <section class="sentences">
                \(sentences().map { "<p><b>\(Markup.escape($0.name))</b> \(Markup.escape($0.text))</p>" }.joined(separator: "\n"))
                </section>
                \(changes.isEmpty ? "" : "<h2>Since the earlier run</h2>" + list(changes, "changes"))
                \(measures.map(section).joined(separator: "\n"))
                <h2>Notes</h2>
                <p class="note">\(Markup.escape(explanation)) The bar is the median, the line over it the interval. Bars of one \
                group have one scale; grey is the runtime that the others are compared with, orange an emulator's clock. \(Markup.escape(drifts()))</p>
                \(list(notes(), "note"))
                <div class="wide">\(Markup.table(known, style: "facts", hasHeader: false))</div>
                """)
    }

    private var known: [[String]] {
        [["date", date], ["rounds", "\(rounds)"]]
            + runtimes.map { [$0.name, $0.version.isEmpty ? $0.program : $0.version] }
            + facts.map { [$0.name, $0.value] }
    }

    private func notes() -> [String] {
        var notes = Footnotes()
        for measure in measures {
            for series in measure.series {
                if let failure = series.failure { _ = notes.mark("\(runtimes[series.runtime].name): \(failure)") }
            }
        }
        return notes.texts + missing.map { "Not measured: \($0.name): \($0.reason)" }
    }

    private func list(_ lines: [String], _ style: String) -> String {
        if lines.isEmpty { return "" }
        return "<ul class=\"\(style)\">" + lines.map { "<li>\(Markup.escape($0))</li>" }.joined() + "</ul>"
    }

    private func section(_ measure: Measure) -> String {
        let longest = measure.series.compactMap { $0.estimate?.high }.max() ?? 0
        let direction = measure.better == .lower ? "less is better" : "more is better"
        let rows = measure.series.map { row($0, measure, scale: longest > 0 ? 100 / longest : 0) }
        return """
            <section class="measure">
            <h3>\(Markup.escape(measure.name.replacing("`", with: ""))) <span>\(Markup.escape(measure.unit)), \(direction)</span></h3>
            \(rows.joined(separator: "\n"))
            </section>
            """
    }

    private func row(_ series: Series, _ measure: Measure, scale: Double) -> String {
        let name = Markup.escape(runtimes[series.runtime].name)
        let bar: String
        var figure = "–"
        var cost = ""
        if let estimate = series.estimate {
            let runtime = runtimes[series.runtime]
            let kind = series.runtime == baseline ? "base" : runtime.emulator == nil ? "side" : "emulated"
            figure = Self.figure(series) ?? figure
            bar = Self.bar(estimate, kind: kind, scale: scale, label: "\(runtime.name): \(figure) \(measure.unit)")
            if series.runtime != baseline { cost = Self.cost(series).map { "× " + $0 } ?? "" }
        } else {
            bar = "<em>\(Markup.escape(series.failure ?? "not measured"))</em>"
        }
        return """
            <div class="row"><b>\(name)</b><div class="plot">\(bar)</div><span class="value">\(figure)</span>\
            <span class="cost">\(cost)</span></div>
            """
    }

    /// A bar that is as wide as its place: its coordinates are percents.
    private static func bar(_ estimate: Estimate, kind: String, scale: Double, label: String) -> String {
        func percent(_ value: Double) -> String { Figures.fixed(max(0, value) * scale, 2) + "%" }
        let low = percent(estimate.low)
        let high = percent(estimate.high)
        return """
            <svg role="img" aria-label="\(Markup.escape(label))"><rect class="\(kind)" y="2" \
            width="\(percent(estimate.median))" height="14" rx="2"/><line x1="\(low)" x2="\(high)" y1="9" y2="9"/>\
            <line x1="\(low)" x2="\(low)" y1="5" y2="13"/><line x1="\(high)" x2="\(high)" y1="5" y2="13"/></svg>
            """
    }

    private static let style = """
        h2 { font-size: 1.1rem; margin: 1.6rem 0 0.4rem; }
        h3 { font-size: 0.95rem; margin: 1.4rem 0 0.3rem; }
        h3 span { font-weight: 400; color: var(--pale); font-size: 13px; }
        p, li, code, td { overflow-wrap: anywhere; }
        .banner { border: 2px solid var(--side1); border-radius: 6px; padding: 0.6rem 0.8rem; font-weight: 600; }
        .warnings { color: var(--pale); padding-left: 1.2rem; }
        .sentences p { margin: 0.5rem 0; }
        .row { display: grid; grid-template-columns: 9.5rem 1fr 11rem 9rem; gap: 0.7rem; align-items: center; font-size: 13px;
          font-variant-numeric: tabular-nums; padding: 1px 0; }
        .row b { font-weight: 500; }
        .row em { color: var(--pale); font-style: normal; overflow-wrap: anywhere; }
        .row .cost { color: var(--pale); }
        .row svg { display: block; width: 100%; height: 18px; margin: 0; overflow: visible; }
        .row .side { fill: var(--side0); } .row .base { fill: var(--pale); } .row .emulated { fill: var(--side1); }
        .row line { stroke: var(--ink); stroke-width: 1.2; }
        .wide { overflow-x: auto; }
        @media (max-width: 640px) {
          body { margin: 1rem auto; }
          .row { grid-template-columns: 1fr auto; gap: 0 0.6rem; padding: 4px 0; }
          .row .plot { grid-column: 1 / -1; grid-row: 2; }
          .row .value { text-align: right; }
          .row .cost { grid-column: 1 / -1; grid-row: 3; }
        }
        """
}
