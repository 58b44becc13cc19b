/// Measurements in turns: A B A B …
///
/// A host with other work is slower for a while. When the sides take turns, that affects all of them alike.
public enum Rounds {
    /// Runs each side once in each of `count` rounds. A round 0 comes first and does not count, because caches are cold then.
    ///
    /// - Parameters:
    ///   - keepsFirst: round 0 counts.
    ///   - measure: performs one run of a side. An error that it throws ends the measurement.
    /// - Returns: for each side, the results of its rounds in order.
    public static func run<Side, Result>(
        _ count: Int, of sides: [Side], keepsFirst: Bool = false,
        measure: (_ round: Int, _ side: Side) async throws -> Result
    ) async rethrows -> [[Result]] {
        var results: [[Result]] = sides.map { _ in [] }
        for round in 0...max(0, count) {
            for (number, side) in sides.enumerated() {
                let result = try await measure(round, side)
                if round > 0 || keepsFirst { results[number].append(result) }
            }
        }
        return results
    }
}
