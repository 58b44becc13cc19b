/// Reads OpenMetrics text (version 1.0.0) as strictly as the specification is written, so far as Martlet uses it: counters, gauges
/// and histograms, without timestamps and exemplars.
///
/// Source: OpenMetrics 1.0.0, "Text format" and "Data model".
struct OpenMetrics {
    struct Sample: Hashable {
        var name: String
        var labels: [String: String]
    }

    private(set) var kinds: [String: String] = [:]
    private(set) var values: [Sample: Double] = [:]

    /// The value of a sample that has these labels and any others; nil unless there is exactly one.
    func value(_ name: String, _ labels: [String: String] = [:]) -> Double? {
        let found = values.filter { sample, _ in
            sample.name == name && labels.allSatisfy { sample.labels[$0.key] == $0.value }
        }
        return found.count == 1 ? found.first?.value : nil
    }

    init(_ text: String) throws {
        guard text.hasSuffix("\n# EOF\n") || text == "# EOF\n" else { throw LabError("no # EOF at the end") }
        var family = ""
        var described: Set<String> = []
        for line in text.dropLast("# EOF\n".count).split(separator: "\n", omittingEmptySubsequences: false).dropLast() {
            if line.hasPrefix("# ") {
                let words = line.split(separator: " ", maxSplits: 3, omittingEmptySubsequences: false).map(String.init)
                guard words.count == 4, ["HELP", "TYPE", "UNIT"].contains(words[1]) else {
                    throw LabError("not metadata: \(line)")
                }
                if words[2] != family {
                    guard kinds[words[2]] == nil else { throw LabError("\(words[2]) comes twice") }
                    (family, described) = (words[2], [])
                    kinds[family] = "unknown"
                }
                guard described.insert(words[1]).inserted, values.keys.allSatisfy({ !belongs($0.name, to: family) })
                else { throw LabError("metadata of \(family) twice, or behind samples: \(line)") }
                if words[1] == "TYPE" { kinds[family] = words[3] }
                if words[1] == "UNIT", !family.hasSuffix("_\(words[3])") { throw LabError("unit: \(line)") }
            } else {
                let (sample, value) = try Self.sample(line)
                guard belongs(sample.name, to: family) else { throw LabError("not of \(family): \(line)") }
                guard values.updateValue(value, forKey: sample) == nil else { throw LabError("twice: \(line)") }
            }
        }
        try checkValues()
    }

    private func belongs(_ name: String, to family: String) -> Bool {
        switch kinds[family] {
        case "counter": name == "\(family)_total"
        case "gauge": name == family
        case "histogram": ["bucket", "sum", "count"].contains { name == "\(family)_\($0)" }
        default: false
        }
    }

    private static func sample(_ line: Substring) throws -> (Sample, Double) {
        var rest = line
        func failure() -> LabError { LabError("not a sample: \(line)") }
        let name = rest.prefix { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "_") }
        rest = rest.dropFirst(name.count)
        var labels: [String: String] = [:]
        if rest.first == "{" {
            repeat {
                rest.removeFirst()
                let label = rest.prefix { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "_") }
                rest = rest.dropFirst(label.count)
                guard !label.isEmpty, rest.hasPrefix("=\"") else { throw failure() }
                rest = rest.dropFirst(2)
                var value = ""
                while let character = rest.popFirst(), character != "\"" {
                    guard character == "\\" else {
                        value.append(character)
                        continue
                    }
                    switch rest.popFirst() {
                    case "n": value.append("\n")
                    case "\\": value.append("\\")
                    case "\"": value.append("\"")
                    default: throw failure()
                    }
                }
                guard labels.updateValue(value, forKey: String(label)) == nil else { throw failure() }
            } while rest.first == ","
            guard rest.popFirst() == "}" else { throw failure() }
        }
        guard !name.isEmpty, rest.popFirst() == " ", let value = number(rest) else { throw failure() }
        return (Sample(name: String(name), labels: labels), value)
    }

    private static func number(_ text: Substring) -> Double? {
        switch text {
        case "+Inf": .infinity
        case "-Inf": -.infinity
        case "NaN": .nan
        default: text.contains { !"0123456789+-.e".contains($0) } ? nil : Double(text)
        }
    }

    /// Counters are not negative; the buckets of a histogram grow, and the last one has all.
    private func checkValues() throws {
        for (sample, value) in values {
            if sample.name.hasSuffix("_total"), !(value >= 0 && value.isFinite) {
                throw LabError("\(sample): \(value)")
            }
        }
        for (family, kind) in kinds where kind == "histogram" {
            var series: [[String: String]: [(bound: Double, count: Double)]] = [:]
            for (sample, value) in values where sample.name == "\(family)_bucket" {
                var labels = sample.labels
                guard let le = labels.removeValue(forKey: "le"), let bound = Self.number(le[...]),
                    le == "+Inf" || le.contains(where: { ".e".contains($0) })
                else { throw LabError("\(sample): no float as le") }
                series[labels, default: []].append((bound, value))
            }
            for (labels, buckets) in series {
                let counts = buckets.sorted { $0.bound < $1.bound }.map(\.count)
                guard counts == counts.sorted(), buckets.contains(where: { $0.bound == .infinity }),
                    counts.last == values[Sample(name: "\(family)_count", labels: labels)],
                    values[Sample(name: "\(family)_sum", labels: labels)] != nil
                else { throw LabError("\(family)\(labels): \(buckets)") }
            }
        }
    }
}
