import Glibc
import LinuxSystem
import Synchronization

/// The bundles of one runtime: the directories of what its containers do.
public struct IsolationBundles: Sendable {
    /// Prints a word and sleeps.
    public var serving: String
    /// `true`.
    public var nothing: String
    /// Both as `serving`. Annotations of CRI say that the first stands for a pod, which the second joins. Their ids are `ids`.
    public var pair: (String, String)
    /// `martlet-bench-guest load`.
    public var load: String
    /// `cat`.
    public var echo: String
    /// Prints a word, and keeps all CPUs and the root file system busy.
    public var noise: String

    /// redis and its clients, as `IsolationApplications` says; nil: it is not measured.
    public var redis: String?
    /// PostgreSQL and its clients.
    public var postgres: String?

    public init(
        serving: String, nothing: String, pair: (String, String), load: String, echo: String, noise: String,
        redis: String? = nil, postgres: String? = nil
    ) {
        self.echo = echo
        self.noise = noise
        self.redis = redis
        self.postgres = postgres
        self.serving = serving
        self.nothing = nothing
        self.pair = pair
        self.load = load
    }

    /// The ids of the two containers of a pair.
    public static func pairIDs(of side: Int) -> (String, String) {
        let first = "bench-\(getpid())-\(side)-pair"
        return (first, first + "-2")
    }
}

/// What one runtime does in its turn.
struct RuntimeTurn {
    let runtime: OCIRuntime
    /// Its number.
    let side: Int
    let bundles: IsolationBundles
    /// The directory of the runtime's state.
    let root: String
    let brood: Brood
    /// How long one command may take.
    let limit: Duration
    /// Those that are there, and how they call the runtime.
    var engines: [(engine: any IsolationEngine, runtime: IsolationEngineRuntime)] = []

    /// - Throws: `BenchError` where it fails as a whole. The containers and processes of the turn have ended then too.
    func perform(_ turn: IsolationMeasure.Turn) throws -> TurnResult {
        do {
            let result =
                switch turn {
                case .start: try start()
                case .whole: TurnResult(figures: ["run": try run(bundles.nothing, "run").waitForSuccess(limit)])
                case .pair: try pair()
                case .load: try phases(bundles.load, turn)
                case .redis: try phases(bundles.redis, turn)
                case .postgres: try phases(bundles.postgres, turn)
                case .request: try requests()
                case .ten: try many(10)
                case .fifty: try many(50)
                case .density: try density()
                case .podman, .containerd, .docker: try engine(turn)
                }
            let left = brood.end(patience: .seconds(5))
            if !left.isEmpty {
                throw BenchError("\(runtime.name) left processes behind: \(left.joined(separator: ", "))")
            }
            return result
        } catch {
            for id in ids { remove(id) }
            _ = brood.end(patience: .zero)
            for id in ids { removeCgroups(id) }
            throw error
        }
    }

    // MARK: Turns

    private func start() throws -> TurnResult {
        let container = run(bundles.serving, "start")
        let process = try container.process()
        let first = try process.waitForOutput(limit)
        var result = TurnResult(figures: ["start": Double(first - process.begin) / 1e6])
        result.figures["memory-1"] = brood.memoryAtRest()
        do {
            result.figures["exec"] = try call(["exec", container.id, "/bin/true"]).waitForSuccess(limit)
        } catch let error as BenchError {
            result.missed["exec"] = "\(error)"
        }
        try end([(container.id, process)])
        return result
    }

    private func pair() throws -> TurnResult {
        let begin = monotonicNanoseconds()
        let (first, second) = IsolationBundles.pairIDs(of: side)
        var last = begin
        var all: [(String, RuntimeProcess)] = []
        for (id, bundle) in [(first, bundles.pair.0), (second, bundles.pair.1)] {
            let process = try call(["run", "--bundle", bundle, id])
            all.append((id, process))
            last = try process.waitForOutput(limit)
        }
        try end(all.reversed())
        return TurnResult(figures: ["two": Double(last - begin) / 1e6])
    }

    /// Runs a container that marks the phases of its work on its output.
    private func phases(_ bundle: String?, _ turn: IsolationMeasure.Turn) throws -> TurnResult {
        guard let bundle else { throw BenchError("no bundle for \(turn.rawValue)") }
        let recorder = Mutex(PhaseRecorder())
        let process = try RuntimeProcess(runtime, arguments(["run", "--bundle", bundle, id(turn.rawValue)])) {
            line, time in
            recorder.withLock { $0.record(line, at: time) }
        }
        let outcome = try process.waitForEnd(limit)
        let record = recorder.withLock { $0 }
        guard record.isDone else { throw process.failure(record.failure ?? "\(outcome.end), the work was not done") }
        return Self.figures(of: record, turn)
    }

    /// The figures of the container's work.
    static func figures(of record: PhaseRecorder, _ turn: IsolationMeasure.Turn = .load) -> TurnResult {
        var result = TurnResult(missed: record.missed)
        for measure in IsolationMeasure.all where measure.turn == turn {
            if let phase = record.phases.first(where: { $0.name == measure.key }) {
                result.figures[measure.key] = measure.figure(phase)
            } else if result.missed[measure.key] == nil {
                result.missed[measure.key] = "the container did not do it"
            }
        }
        return result
    }

    private func requests() throws -> TurnResult {
        let echo = id("echo")
        let requests = try RequestTurn(runtime, arguments(["run", "--bundle", bundles.echo, echo]), limit: limit)
        let quiet = try requests.latencies()
        let noise = run(bundles.noise, "noise")
        let neighbour = try noise.process()
        _ = try neighbour.waitForOutput(limit)
        let noisy = try requests.latencies()
        try end([(noise.id, neighbour), (echo, requests.process)])
        return TurnResult(figures: [
            "request": RequestTurn.percentile(quiet, 0.5), "request-tail": RequestTurn.percentile(quiet, 0.99),
            "request-noisy": RequestTurn.percentile(noisy, 0.99),
        ])
    }

    /// - Throws: `BenchError` where one of the containers does not start.
    private func many(_ count: Int) throws -> TurnResult {
        var all: [(String, RuntimeProcess)] = []
        for number in 1...count {
            let container = run(bundles.serving, "many-\(number)")
            let process = try container.process()
            all.append((container.id, process))
            _ = try process.waitForOutput(limit)
        }
        let memory = brood.memoryAtRest() / Double(count)
        try end(all)
        return TurnResult(figures: ["memory-\(count)": memory])
    }

    /// Starts containers until the host's memory is used to `densityPart`.
    ///
    /// - Throws: `BenchError` where one does not start before that.
    private func density() throws -> TurnResult {
        var all: [(String, RuntimeProcess)] = []
        while all.count < Self.mostContainers, HostConditions.read().usedPart < Self.densityPart {
            let container = run(bundles.serving, "many-\(all.count + 1)")
            let process = try container.process()
            all.append((container.id, process))
            do { _ = try process.waitForOutput(limit) } catch {
                throw BenchError("container \(all.count) did not start: \(error)")
            }
        }
        let count = all.count
        try end(all)
        return TurnResult(figures: ["density": Double(count)])
    }

    /// Of the host's memory.
    static let densityPart = 0.8
    /// More containers are not started.
    static let mostContainers = 1000

    private func engine(_ turn: IsolationMeasure.Turn) throws -> TurnResult {
        guard let (engine, runtime) = engines.first(where: { $0.engine.turn == turn }) else {
            throw BenchError("no \(turn.rawValue)")
        }
        return try EngineTurn(
            engine: engine, runtime: runtime, id: id(turn.rawValue), rootfs: "\(bundles.serving)/rootfs",
            brood: brood, limit: limit
        ).perform()
    }

    // MARK: Commands

    /// A `run` to be.
    private struct Run {
        var id: String
        var process: () throws -> RuntimeProcess
        func waitForSuccess(_ limit: Duration) throws -> Double { try process().waitForSuccess(limit) }
    }

    private func run(_ bundle: String, _ name: String) -> Run {
        let id = id(name)
        return Run(id: id) { try call(["run", "--bundle", bundle, id]) }
    }

    private func id(_ name: String) -> String { "bench-\(getpid())-\(side)-\(name)" }

    private var ids: [String] {
        let pair = IsolationBundles.pairIDs(of: side)
        let engines = engines.map(\.engine.turn.rawValue)
        return [pair.1, pair.0] + (["start", "run", "load", "redis", "postgres", "echo", "noise"] + engines).map(id)
            + (1...Self.mostContainers).map { id("many-\($0)") }
    }

    private func arguments(_ command: [String]) -> [String] { runtime.options + ["--root", root] + command }

    private func call(_ command: [String]) throws -> RuntimeProcess {
        try RuntimeProcess(runtime, arguments(command))
    }

    /// Kills containers, and waits until the commands that ran them have ended, which delete them.
    private func end(_ containers: [(id: String, process: RuntimeProcess)]) throws {
        for (id, process) in containers {
            _ = try? call(["kill", id, "KILL"]).waitForEnd(.seconds(20), isCleanup: true)
            _ = try process.waitForEnd(.seconds(20), isCleanup: true)
        }
    }

    /// Removes the cgroups that are named after a container. A runtime leaves them where it could not end the container.
    private func removeCgroups(_ id: String) {
        let top = "/sys/fs/cgroup"
        // Version 1 has a directory for each controller.
        for parent in [top] + ((try? directoryNames(top)) ?? []).map({ "\(top)/\($0)" }) { rmdir("\(parent)/\(id)") }
    }

    /// Removes what a turn that failed may have left; nothing is wrong where there is no such container.
    private func remove(_ id: String) {
        guard ((try? directoryNames(root)) ?? []).contains(where: { $0.contains(id) }) else { return }
        _ = try? call(["kill", id, "KILL"]).waitForEnd(.seconds(10), isCleanup: true)
        _ = try? call(["delete", "--force", id]).waitForEnd(.seconds(20), isCleanup: true)
    }
}
