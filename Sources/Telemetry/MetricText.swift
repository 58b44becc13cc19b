/// The forms in which metrics are told.
public enum MetricFormat: String, Sendable, CaseIterable {
    /// The text format of Prometheus, version 0.0.4.
    case prometheus
    /// OpenMetrics, version 1.0.0.
    case openmetrics

    /// Of HTTP.
    public var contentType: String {
        switch self {
        case .prometheus: "text/plain; version=0.0.4; charset=utf-8"
        case .openmetrics: "application/openmetrics-text; version=1.0.0; charset=utf-8"
        }
    }

    /// The form that a client wants.
    ///
    /// - Parameter accept: the values of HTTP's header `Accept`.
    public init(accept: [String]) {
        let wants = accept.flatMap { $0.split(separator: ",") }.contains { choice in
            let parts = choice.split(separator: ";").map { $0.filter { $0 != " " }.lowercased() }
            guard parts.first == "application/openmetrics-text" else { return false }
            let quality = parts.first { $0.hasPrefix("q=") }.flatMap { Double($0.dropFirst(2)) }
            return quality != 0
        }
        self = wants ? .openmetrics : .prometheus
    }
}

extension MetricReadings {
    /// The values as text.
    ///
    /// - Parameter common: labels of every sample: name and value.
    public func text(_ format: MetricFormat, common: [(String, String)] = []) -> String {
        var text = ""
        for family in MetricFamily.all {
            guard let samples = samples[family.name] else { continue }
            let name = format == .openmetrics ? family.name : family.queryName
            text += "# HELP \(name) \(escaped(family.help, quotes: format == .openmetrics))\n"
            text += "# TYPE \(name) \(family.kind.rawValue)\n"
            if format == .openmetrics, !family.unit.isEmpty { text += "# UNIT \(name) \(family.unit)\n" }
            for sample in samples.sorted(by: { $0.labels.lexicographicallyPrecedes($1.labels) }) {
                write(sample, of: family, common + Array(zip(family.labels, sample.labels)), format, to: &text)
            }
        }
        return text + (format == .openmetrics ? MetricTexts.end : "")
    }

    private func write(
        _ sample: Sample, of family: MetricFamily, _ labels: [(String, String)], _ format: MetricFormat,
        to text: inout String
    ) {
        func line(_ name: String, _ more: [(String, String)] = [], value: String) {
            let labels = (labels + more).map { "\($0)=\"\(escaped($1, quotes: true))\"" }.joined(separator: ",")
            text += "\(name)\(labels.isEmpty ? "" : "{\(labels)}") \(value)\n"
        }
        switch sample.value {
        case .number(let value): line(family.queryName, value: number(value))
        case .histogram(let histogram):
            var count: UInt64 = 0
            for (index, own) in histogram.counts.enumerated() {
                count += own
                let bound = index < family.buckets.count ? family.buckets[index] : .infinity
                // OpenMetrics wants a bound to be a float.
                let le = format == .openmetrics && bound.isFinite ? "\(bound)" : number(bound)
                line("\(family.name)_bucket", [("le", le)], value: "\(count)")
            }
            line("\(family.name)_sum", value: number(histogram.sum))
            line("\(family.name)_count", value: "\(count)")
        }
    }

    private func number(_ value: Double) -> String {
        if value.isInfinite { return value < 0 ? "-Inf" : "+Inf" }
        if value.isNaN { return "NaN" }
        // Whole numbers without a fraction, as far as a Double tells them apart.
        if let whole = Int64(exactly: value), whole.magnitude < 1 << 53 { return "\(whole)" }
        return "\(value)"
    }

    private func escaped(_ text: String, quotes: Bool) -> String {
        var result = ""
        for character in text.unicodeScalars {
            switch character {
            case "\\": result += "\\\\"
            case "\n": result += "\\n"
            case "\"" where quotes: result += "\\\""
            default: result.unicodeScalars.append(character)
            }
        }
        return result
    }
}

/// Texts of several sources as one: each family has its lines of description once, and all of its samples.
public struct MetricTexts {
    static let end = "# EOF\n"
    /// The longest line that is taken, bytes.
    private static let longestLine = 4096
    private var order: [Substring] = []
    private var families: [Substring: (description: [Substring], samples: [Substring])] = [:]

    public init() {}

    /// Adds a text. All must have the same form.
    public mutating func add(_ text: String) {
        var name: Substring = ""
        for line in text.split(separator: "\n") where line.utf8.count <= Self.longestLine {
            if line.hasPrefix("# ") {
                let words = line.split(separator: " ", maxSplits: 3)
                guard words.count == 4, ["HELP", "TYPE", "UNIT"].contains(words[1]) else { continue }
                if words[2] != name {
                    name = words[2]
                    if families[name] == nil { order.append(name) }
                }
                var family = families[name] ?? ([], [])
                let isKnown = family.description.contains { $0.hasPrefix("# \(words[1]) ") }
                if !isKnown { family.description.append(line) }
                families[name] = family
            } else if !name.isEmpty {
                families[name]?.samples.append(line)
            }
        }
    }

    /// All of it, in the order in which the families came.
    public func text(_ format: MetricFormat) -> String {
        var text = ""
        for name in order {
            guard let family = families[name], !family.samples.isEmpty else { continue }
            for line in family.description + family.samples { text += "\(line)\n" }
        }
        return text + (format == .openmetrics ? Self.end : "")
    }
}
