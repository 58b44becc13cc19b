import FoundationEssentials
import Glibc
import LinuxSystem

/// `martlet bench isolation`: what containers of several OCI runtimes cost on this machine, measured in turns.
public struct IsolationBench: Sendable {
    /// All that are tried.
    public var runtimes: [OCIRuntime]
    /// Those that can't be tried, and why.
    public var missing: [IsolationReport.Missing]
    /// How long all rounds may take.
    public var seconds = 600
    /// Leaves out the memory of ten containers, and the latency beside a busy one.
    public var isQuick = false
    /// Measures the memory of fifty containers too.
    public var hasFifty = false
    /// Starts containers until the host's memory is nearly used up.
    public var hasDensity = false
    /// Has redis answer requests, by the bundles' `redis`.
    public var hasRedis = false
    /// Has PostgreSQL perform transactions, by the bundles' `postgres`.
    public var hasPostgres = false
    /// podman's path; nil: it is not measured.
    public var podman: String?
    /// The socket of a containerd for this bench alone, and the path of `ctr`; nil: it is not measured.
    public var containerd: (address: String, ctr: String)?
    /// The address of a dockerd for this bench alone, with its image, and the path of `docker`; nil: it is not measured.
    public var docker: (address: String, client: String)?
    /// Why KVM runs no machines here; nil where it does.
    public var kvmObjection: String?
    /// Holds the runtimes' states. Nothing of it is mounted afterwards; the caller removes it.
    public var directory: String
    /// How long one command may take: not so long that one that hangs takes most of the time.
    var limit: Duration { .seconds(max(40, min(120, seconds / 4))) }

    /// Half of the interval that is wanted, as a part of the median.
    static let tolerance = 0.05
    static let mostRounds = 200

    public init(runtimes: [OCIRuntime], missing: [IsolationReport.Missing], directory: String) {
        self.runtimes = runtimes
        self.missing = missing
        self.directory = directory
    }

    /// Measures until all intervals are narrow enough or the time is over. SIGINT and SIGTERM end it without a report.
    ///
    /// - Parameters:
    ///   - bundles: makes the bundles of a runtime, by its place in `runtimes`.
    ///   - progress: called with a message before each turn.
    /// - Throws: `BenchError` where no runtime can be measured.
    public func run(
        command: String, facts: [BenchReport.Fact], bundles: (Int) throws -> IsolationBundles,
        progress: (String) -> Void
    ) throws -> IsolationReport {
        let brood = try Brood()
        Interruption.watch()
        let bundles = try runtimes.indices.map(bundles)
        let begin = HostConditions.read()
        let engines = engines
        let engineRuntimes = try runtimes.indices.map { side in
            try IsolationEngineRuntime(runtimes[side], side: side, in: directory)
        }
        var rounds = IsolationRounds(runtimes: runtimes.count, turns: turns, budget: Duration.seconds(seconds))
        let names = runtimes.map(\.name)
        defer { unmount(progress) }
        try rounds.run { round, turn, side in
            progress("\(round == 0 ? "warm-up" : "round \(round)"): \(names[side]), \(turn.rawValue)")
            let root = "\(directory)/state-\(side)"
            try makeDirectories(root, mode: 0o700)
            return try RuntimeTurn(
                runtime: runtimes[side], side: side, bundles: bundles[side], root: root, brood: brood,
                limit: limit, engines: engines.map { ($0, engineRuntimes[side]) }
            ).perform(turn)
        }
        return try report(rounds, command: command, facts: facts, from: begin, to: HostConditions.read())
    }

    private var engines: [any IsolationEngine] {
        var engines: [any IsolationEngine] = []
        if let podman {
            let program = OCIRuntime("podman", program: podman)
            engines.append(PodmanEngine(program: program, directory: "\(directory)/podman"))
        }
        if let containerd {
            let program = OCIRuntime("ctr", program: containerd.ctr)
            engines.append(ContainerdEngine(program: program, address: containerd.address))
        }
        if let docker {
            let program = OCIRuntime("docker", program: docker.client)
            engines.append(DockerEngine(program: program, address: docker.address))
        }
        return engines
    }

    private var turns: [IsolationMeasure.Turn] {
        IsolationMeasure.Turn.allCases.filter { turn in
            switch turn {
            case .start, .whole, .pair, .load: true
            case .podman: podman != nil
            case .containerd: containerd != nil
            case .docker: docker != nil
            case .redis: hasRedis
            case .postgres: hasPostgres
            case .request, .ten: !isQuick
            case .fifty: hasFifty
            case .density: hasDensity
            }
        }
    }

    /// Unmounts what runtimes have left mounted below `directory`, and says so.
    private func unmount(_ progress: (String) -> Void) {
        // dockerd, which still runs, has a mount of its own.
        let left = ((try? MountEntry.all()) ?? []).map(\.mountPoint)
            .filter { $0.hasPrefix(directory + "/") && !$0.hasPrefix(directory + "/docker/") }
        for point in left { progress("a runtime has left a mount: \(point)") }
        for point in left.reversed() { umount2(point, Int32(MNT_DETACH)) }
    }

    func report(
        _ rounds: IsolationRounds, command: String, facts: [BenchReport.Fact], from begin: HostConditions,
        to end: HostConditions
    ) throws -> IsolationReport {
        let measured = runtimes.indices.filter { rounds.excluded[$0] == nil }
        let more = runtimes.indices.compactMap { side in
            rounds.excluded[side].map { IsolationReport.Missing(runtimes[side].name, $0) }
        }
        guard !measured.isEmpty else {
            let reasons = (missing + more).map { "\($0.name): \($0.reason)" }.joined(separator: "; ")
            throw BenchError("no OCI runtime can be measured here" + (reasons.isEmpty ? "" : ": \(reasons)"))
        }
        let kept = measured.map { runtimes[$0] }
        let host: [BenchReport.Fact] = [
            .init("processor", "\(begin.processors) × \(begin.model)"),
            .init("memory", "\(Figures.short(Double(begin.memoryKiB) / 1_048_576)) GiB"),
            .init(
                "load", "\(Figures.fixed(begin.load, 2)) at the start, \(Figures.fixed(end.load, 2)) at the end"),
        ]
        return IsolationReport(
            command: command, date: Date().formatted(.iso8601), runtimes: kept,
            baseline: kept.firstIndex { $0.name == "runc" } ?? 0, missing: missing + more,
            banner: HostConditions.banner(host: begin, runtimes: kept),
            warnings: HostConditions.warnings(from: begin, to: end, kvmObjection: kvmObjection),
            facts: host + facts, rounds: rounds.count, measures: rounds.measures(of: measured, names: kept.map(\.name)))
    }
}

/// Rounds in which all sides take turns, in an order that moves by one with each round, until it is known well enough what they give.
struct IsolationRounds {
    private struct Key: Hashable {
        var side: Int
        var measure: String
    }

    let runtimes: Int
    let turns: [IsolationMeasure.Turn]
    let budget: Duration
    /// The time; tests have one of their own.
    var now: () -> ContinuousClock.Instant = { .now }

    /// Rounds that count.
    private(set) var count = 0
    /// Sides that start no container here, and why.
    private(set) var excluded: [Int: String] = [:]
    private var values: [Key: [(round: Int, value: Double)]] = [:]
    private var warmUps: [Key: Double] = [:]
    private var failures: [Key: (first: String, count: Int)] = [:]
    /// What fails so often is not tried again.
    private static let mostFailures = 3
    private static let mostFailuresBeforeAnyValue = 2

    init(runtimes: Int, turns: [IsolationMeasure.Turn], budget: Duration) {
        self.runtimes = runtimes
        self.turns = turns
        self.budget = budget
    }

    /// Measures. Round 0 warms caches up and does not count. After it there is at least one round. A turn begins for all sides or
    /// for none; it does not begin where the last of its kind took longer than what is left of the time.
    ///
    /// - Parameter measure: performs a turn of a side. An error of it counts for the side, unless it is of `Interruption`.
    mutating func run(
        _ measure: (_ round: Int, _ turn: IsolationMeasure.Turn, _ side: Int) throws -> TurnResult
    ) throws {
        let deadline = now() + budget
        var durations: [IsolationMeasure.Turn: Duration] = [:]
        var round = 0
        while round <= IsolationBench.mostRounds {
            var hasWorked = false
            for turn in turns where isWanted(turn, round) {
                if round > 1, let last = durations[turn], now() + last > deadline { continue }
                let begin = now()
                for place in 0..<runtimes {
                    let side = (place + round) % runtimes
                    guard excluded[side] == nil, canGoOn(side, turn) else { continue }
                    hasWorked = true
                    do {
                        record(try measure(round, turn, side), round, turn, side)
                    } catch let error as Interruption.Interrupted { throw error } catch {
                        fail(turn, side, round, "\(error)")
                    }
                }
                durations[turn] = now() - begin
            }
            if round > 0, !hasWorked { break }
            count = round
            if excluded.count == runtimes { break }
            round += 1
        }
    }

    private static func measures(_ turn: IsolationMeasure.Turn) -> [IsolationMeasure] {
        IsolationMeasure.all.filter { $0.turn == turn }
    }

    private func isWanted(_ turn: IsolationMeasure.Turn, _ round: Int) -> Bool {
        if let rounds = turn.rounds { return (1...rounds).contains(round) }
        if round <= 1 { return true }
        return Self.measures(turn).contains { measure in
            (0..<runtimes).contains { side in
                let key = Key(side: side, measure: measure.key)
                guard excluded[side] == nil, isTried(key) else { return false }
                guard let samples = Samples((values[key] ?? []).map(\.value)) else { return true }
                return samples.values.count < Bootstrap.fewest
                    || !Bootstrap.median(samples).isWithin(IsolationBench.tolerance)
            }
        }
    }

    /// Whether a side has a measure of a turn that is worth trying.
    private func canGoOn(_ side: Int, _ turn: IsolationMeasure.Turn) -> Bool {
        Self.measures(turn).contains { isTried(Key(side: side, measure: $0.key)) }
    }

    private func isTried(_ key: Key) -> Bool {
        guard let failure = failures[key] else { return true }
        return failure.count < (values[key] == nil ? Self.mostFailuresBeforeAnyValue : Self.mostFailures)
    }

    private mutating func fail(_ key: Key, _ round: Int, _ reason: String) {
        let when = round > 1 ? "in round \(round): " : ""
        failures[key, default: (when + reason, 0)].count += 1
    }

    private mutating func record(
        _ result: TurnResult, _ round: Int, _ turn: IsolationMeasure.Turn, _ side: Int
    ) {
        for measure in Self.measures(turn) {
            let key = Key(side: side, measure: measure.key)
            if let value = result.figures[measure.key], value.isFinite {
                if round == 0 { warmUps[key] = value } else { values[key, default: []].append((round, value)) }
            } else {
                fail(key, round, result.missed[measure.key] ?? "no figure")
            }
        }
    }

    private mutating func fail(_ turn: IsolationMeasure.Turn, _ side: Int, _ round: Int, _ reason: String) {
        if round == 0, turn == .start {
            excluded[side] = reason
            return
        }
        for measure in Self.measures(turn) { fail(Key(side: side, measure: measure.key), round, reason) }
    }

    /// What was measured, with estimates.
    ///
    /// - Parameters:
    ///   - sides: those of the report, in its order.
    ///   - names: theirs. The baseline is `runc`, or else the first.
    func measures(of sides: [Int], names: [String]) -> [IsolationReport.Measure] {
        let baseline = names.firstIndex(of: "runc") ?? 0
        return IsolationMeasure.all.filter { turns.contains($0.turn) }.map { measure in
            var series = sides.enumerated().map { place, side in
                let key = Key(side: side, measure: measure.key)
                return IsolationReport.Series(
                    runtime: place, values: values[key] ?? [], warmUp: warmUps[key], failure: failures[key]?.first)
            }
            let reference = series[baseline]
            for place in series.indices { series[place].compare(with: reference, better: measure.better) }
            return .init(
                key: measure.key, name: measure.name, unit: measure.unit, better: measure.better, series: series)
        }
    }
}
