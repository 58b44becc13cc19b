/// The report as tables for a terminal.
extension IsolationReport {
    public func table() -> String {
        var notes = Footnotes()
        let all = [[""] + runtimes.map(\.name)] + measures.flatMap { pairOfRows($0, &notes) }
        var lines = [title, ""]
        if let banner { lines += [banner, ""] }
        lines += warnings.map { "warning: \($0)" }
        if !warnings.isEmpty { lines.append("") }
        lines += sentences().map { "\($0.name): \($0.text)" } + [""]
        lines += BenchReport.aligned(all) + [""]
        lines += notes.lines
        lines += missing.map { "not measured: \($0.name): \($0.reason)" }
        lines += [explanation, drifts()]
        lines += runtimes.map { "\($0.name): \($0.version.isEmpty ? $0.program : $0.version)" }
        lines += facts.map { "\($0.name): \($0.value)" }
        return lines.joined(separator: "\n")
    }

    private func pairOfRows(_ measure: Measure, _ notes: inout Footnotes) -> [[String]] {
        var figures = ["\(measure.name), \(measure.unit)"]
        var costs = ["  × \(runtimes[baseline].name)"]
        for runtime in runtimes.indices {
            let series = series(measure, runtime)
            let mark = series?.failure.map { notes.mark("\(runtimes[runtime].name): \($0)") } ?? ""
            figures.append((series.flatMap(Self.figure) ?? "–") + mark)
            costs.append(runtime == baseline ? "" : series.flatMap(Self.cost) ?? "–")
        }
        return runtimes.count > 1 ? [figures, costs] : [figures]
    }

    /// `median [low–high]`; of one value, that alone.
    static func figure(_ series: Series) -> String? { series.estimate.map { text($0, series, Figures.short) } }

    /// The same of the cost.
    static func cost(_ series: Series) -> String? { series.cost.map { text($0, series, ratio) } }

    private static func text(_ estimate: Estimate, _ series: Series, _ format: (Double) -> String) -> String {
        series.values.count == 1 ? format(estimate.median) : interval(estimate, format)
    }

    static func interval(_ estimate: Estimate, _ format: (Double) -> String) -> String {
        "\(format(estimate.median)) [\(format(estimate.low))–\(format(estimate.high))]"
    }

    /// Two decimals where they say something.
    static func ratio(_ value: Double) -> String { abs(value) < 10 ? Figures.ratio(value) : Figures.short(value) }

    /// How to read the figures.
    var explanation: String {
        let counts = measures.flatMap(\.series).map(\.values.count).filter { $0 > 0 }
        let few = counts.contains { $0 < Bootstrap.fewest }
        return
            "Medians of \(range(counts)) with their 95 % intervals (bootstrap), after one warm-up round that does not "
            + "count. × is the cost compared with \(runtimes[baseline].name): above 1 it costs more."
            + (few
                ? " Where there are fewer than \(Bootstrap.fewest) rounds, the interval is the range of all values and says little."
                : "")
    }

    private func range(_ counts: [Int]) -> String {
        guard let least = counts.min(), let most = counts.max() else { return "no rounds" }
        if most == 1 { return "1 round" }
        return (least == most ? "\(least)" : "\(least) to \(most)") + " rounds"
    }

    /// Which figures moved while the bench ran.
    func drifts() -> String {
        let known = measures.flatMap { measure in
            measure.series.compactMap { series in series.drift.map { (measure, series.runtime, $0) } }
        }
        if known.isEmpty { return "Drift: too few rounds to tell." }
        let moved = known.filter { abs($0.2 - 1) > IsolationBench.tolerance }.sorted { abs($0.2 - 1) > abs($1.2 - 1) }
        if moved.isEmpty {
            return "Drift: no median of the second half of the rounds is more than 5 % off that of the first half."
        }
        let shown = moved.prefix(5).map { measure, runtime, drift in
            "\(runtimes[runtime].name), \(measure.name) \(Self.percent(drift))"
        }
        let rest = moved.count > 5 ? "; and \(moved.count - 5) more" : ""
        return "Drift, second half of the rounds against the first: \(shown.joined(separator: "; "))\(rest)."
    }

    /// `+7 %` of 1.07.
    static func percent(_ ratio: Double) -> String {
        let text = Figures.fixed((ratio - 1) * 100, 0)
        return (text.hasPrefix("-") ? "−" + text.dropFirst() : "+" + text) + " %"
    }
}

/// Reasons with numbers; the same reason has one number.
struct Footnotes {
    private(set) var texts: [String] = []

    /// ` (1)`.
    mutating func mark(_ text: String) -> String {
        let place = texts.firstIndex(of: text) ?? texts.count
        if place == texts.count { texts.append(text) }
        return " (\(place + 1))"
    }

    var lines: [String] { texts.enumerated().map { "(\($0 + 1)) \($1)" } }
}

/// What a reader in a hurry has to know.
extension IsolationReport {
    /// A sentence for each runtime.
    func sentences() -> [(name: String, text: String)] {
        runtimes.indices.map { runtime in
            var parts = [
                part("start", runtime) { "starts a container in \($0) ms" },
                part("exec", runtime) { "runs a command in it in \($0) ms" },
                part("memory-1", runtime) { "takes \($0) MiB of memory for it" },
                part("getpid", runtime) { "needs \($0) ns for a system call" },
                part("files-root", runtime) { "\($0) µs for a small file" },
                part("integer", runtime) { "\($0) ms for a fixed computation" },
            ].compactMap { $0 }
            if parts.count > 1 { parts[parts.count - 1] = "and " + parts[parts.count - 1] }
            let text = parts.isEmpty ? "gave no figures" : parts.joined(separator: ", ")
            return (
                runtimes[runtime].name, text + (runtimes[runtime].emulator == nil ? "." : ", by the emulator's clock.")
            )
        }
    }

    private func part(_ key: String, _ runtime: Int, _ text: (String) -> String) -> String? {
        guard let measure = measures.first(where: { $0.key == key }), let series = series(measure, runtime),
            let estimate = series.estimate
        else { return nil }
        let compared =
            runtime == baseline
            ? nil
            : series.cost.map { cost in
                cost.contains(1)
                    ? "as \(runtimes[baseline].name) within noise"
                    : "\(Self.ratio(cost.median)) × \(runtimes[baseline].name)"
            }
        return text(Figures.short(estimate.median)) + (compared.map { " (\($0))" } ?? "")
    }
}
