/// Formats numbers for people.
enum Figures {
    /// Three significant digits at least, two decimals at most: 1234, 123, 12.3, 1.23, 0.12.
    static func short(_ value: Double) -> String {
        let size = abs(value)
        return fixed(value, size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2)
    }

    /// A number with a fixed number of decimals, rounded half away from zero.
    static func fixed(_ value: Double, _ decimals: Int) -> String {
        var scale = 1.0
        for _ in 0..<decimals { scale *= 10 }
        guard value.isFinite, abs(value) * scale < 9e15 else { return "\(value)" }
        let digits = String(Int64((abs(value) * scale).rounded()))
        let sign = value < 0 && digits.contains { $0 != "0" } ? "-" : ""
        if decimals == 0 { return sign + digits }
        let padded = String(repeating: "0", count: max(0, decimals + 1 - digits.count)) + digits
        return sign + padded.dropLast(decimals) + "." + padded.suffix(decimals)
    }

    /// `median (minimum–maximum)`.
    static func range(_ samples: Samples, _ format: (Double) -> String) -> String {
        "\(format(samples.median)) (\(format(samples.minimum))–\(format(samples.maximum)))"
    }

    static func ratio(_ value: Double) -> String { fixed(value, 2) }
}
