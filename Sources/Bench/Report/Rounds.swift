/// Measurements in turns: A B A B …
///
/// A machine with other work to do is slower for a while. In turns that hits every side alike; one side's runs after
/// the other's would compare two moments.
public enum Rounds {
    /// Runs each side once in each of `count` rounds. Another, number 0, goes before and does not count: it finds caches cold and
    /// memory that nobody has had yet.
    ///
    /// - Parameter measure: one run of a side; what it throws ends the whole.
    /// - Returns: of each side its runs that count, in order.
    public static func run<Side, Result>(
        _ count: Int, of sides: [Side], measure: (_ round: Int, _ side: Side) async throws -> Result
    ) async rethrows -> [[Result]] {
        var results: [[Result]] = sides.map { _ in [] }
        for round in 0...max(0, count) {
            for (number, side) in sides.enumerated() {
                let result = try await measure(round, side)
                if round > 0 { results[number].append(result) }
            }
        }
        return results
    }
}
