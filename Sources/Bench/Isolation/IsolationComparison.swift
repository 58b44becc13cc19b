/// What has changed between two reports.
extension IsolationReport {
    /// Changes beyond noise, one a line: those of more than 5 % whose interval of the ratio excludes 1. And what can't be compared.
    ///
    /// - Parameter old: an earlier report; its runtimes may be others, or in another order.
    public func changes(since old: IsolationReport) -> [String] {
        var lines: [String] = []
        var compared = 0
        var unknown = 0
        for measure in measures {
            guard let before = old.measures.first(where: { $0.key == measure.key && $0.unit == measure.unit }) else {
                continue
            }
            for series in measure.series {
                let name = runtimes[series.runtime].name
                guard let place = old.runtimes.firstIndex(where: { $0.name == name }),
                    let samples = Samples(series.values),
                    let earlier = old.series(before, place).flatMap({ Samples($0.values) }),
                    let ratio = Bootstrap.ratio(samples, earlier)
                else { continue }
                compared += 1
                guard Bootstrap.canTell(samples.values.count, earlier.values.count) else {
                    unknown += 1
                    continue
                }
                guard !ratio.contains(1), abs(ratio.median - 1) > IsolationBench.tolerance else { continue }
                let isWorse = (ratio.median > 1) == (measure.better == .lower)
                lines.append(
                    "\(isWorse ? "worse" : "better"): \(name), \(measure.name): \(Figures.short(earlier.median)) → "
                        + "\(Figures.short(samples.median)) \(measure.unit) (\(Self.percent(ratio.median)), × "
                        + "\(Self.interval(ratio, Self.ratio)))")
            }
        }
        if compared == 0 { return ["nothing to compare: no measure of a runtime is in both reports"] }
        if lines.isEmpty { lines.append("no change beyond noise") }
        if unknown > 0 {
            lines.append("of \(unknown) of \(compared) figures there are too few rounds to tell (--seconds)")
        }
        return lines
    }
}
