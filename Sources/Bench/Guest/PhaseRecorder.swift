/// Records the phases that a guest reports on its console: `martlet-bench begin NAME`, `end NAME AMOUNT`, `missed NAME REASON`,
/// `done`, `failed REASON`.
///
/// Times are the host's: a guest's clock stops or jumps when its vCPU has to wait.
public struct PhaseRecorder: Sendable {
    public struct Phase: Sendable, Equatable {
        public var name: String
        /// Bytes or operations.
        public var amount: Int
        public var nanoseconds: UInt64
    }

    public private(set) var phases: [Phase] = []
    /// Whether the guest has done all of its work.
    public private(set) var isDone = false
    /// Phases that could not be done while others could, and why.
    public private(set) var missed: [String: String] = [:]
    /// Why the guest failed.
    public private(set) var failure: String?
    private var begun: (name: String, time: UInt64)?

    public init() {}

    /// Records a line of the console that arrived at `time` (monotonic nanoseconds). Other output of the guest is ignored.
    public mutating func record(_ line: String, at time: UInt64) {
        let words = line.split(separator: " ", maxSplits: 2)
        guard words.count >= 2, words[0] == "martlet-bench", !isDone, failure == nil else { return }
        let rest = words.count > 2 ? String(words[2]) : ""
        switch words[1] {
        case "begin": begun = (rest, time)
        case "end": end(rest, time)
        case "missed":
            let parts = rest.split(separator: " ", maxSplits: 1).map(String.init)
            missed[parts.first ?? rest] = parts.count > 1 ? parts[1] : "no reason given"
            begun = nil
        case "done": isDone = true
        default: failure = rest.isEmpty ? line : rest
        }
    }

    private mutating func end(_ words: String, _ time: UInt64) {
        let parts = words.split(separator: " ")
        guard let begun, parts.count == 2, parts[0] == begun.name, let amount = Int(parts[1]), time >= begun.time else {
            failure = "out of order: end \(words)"
            return
        }
        self.begun = nil
        if time == begun.time {
            missed[begun.name] = "its begin and its end arrived together: the host is too busy to measure it"
            return
        }
        phases.append(Phase(name: begun.name, amount: amount, nanoseconds: time - begun.time))
    }
}

extension PhaseRecorder.Phase {
    /// Bytes or operations per second.
    public var rate: Double { Double(amount) * 1e9 / Double(nanoseconds) }
}
