/// The figures of a turn by their measures' keys, and why others are missing.
struct TurnResult: Equatable {
    var figures: [String: Double] = [:]
    var missed: [String: String] = [:]
}
