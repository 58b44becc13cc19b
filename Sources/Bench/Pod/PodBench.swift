import CRIAPI
import FoundationEssentials
import Glibc
import LinuxSystem

/// `martlet bench pod`: start time and memory of a pod with one container, for several runtimes in turns. It sends CRI requests to
/// one engine, as kubelet does.
public struct PodBench: Sendable {
    /// What is measured: pods of one runtime.
    public struct Side: Sendable {
        /// As the report names it.
        public var name: String
        /// The runtime's name in the engine's configuration.
        public var handler: String
        /// Called with the id of each pod that has started; throws when the pod is not what this side measures.
        public var check: @Sendable (_ sandbox: String) throws -> Void
        /// Called before each pod is started; it is not measured.
        public var prepare: @Sendable () async throws -> Void = {}

        public init(
            _ name: String, handler: String, check: @escaping @Sendable (_ sandbox: String) throws -> Void = { _ in }
        ) {
            self.name = name
            self.handler = handler
            self.check = check
        }
    }

    /// The engine's CRI socket.
    public var address: String
    /// The others are compared with the first.
    public var sides: [Side]
    /// An image that the engine has. It must contain `sleep`.
    public var image: String
    /// The timeout of one call.
    public var timeout = Duration.seconds(120)

    public init(address: String, sides: [Side], image: String) {
        self.address = address
        self.sides = sides
        self.image = image
    }

    /// The time between the start of a pod and the reading of its memory.
    private static let settleTime = Duration.seconds(2)

    /// Starts and ends a pod of each side in each round. Another pod of each side idles meanwhile, so that memory that pods
    /// share counts as shared.
    ///
    /// - Parameters:
    ///   - command: what the report says was run.
    ///   - progress: called with a message after each run.
    public func run(
        rounds: Int, command: String, facts: [BenchReport.Fact], progress: (String) -> Void
    ) async throws -> BenchReport {
        let client = try await CRIClient(path: address)
        let engine = try await client.version(within: timeout)
        let pods = PodStarter(client: client, image: image, timeout: timeout)
        var idle: [String] = []
        let results: [[PodRun]]
        do {
            for side in sides {
                try await side.prepare()
                idle.append(try await pods.start(side.handler, "idle").sandbox)
            }
            results = try await Rounds.run(rounds, of: sides) { round, side in
                let run = try await measure(pods, side, "\(round)")
                let start = Figures.short(run.sandbox + run.create + run.start)
                progress("round \(round) of \(rounds), \(side.name): \(start) ms, \(run.memory.privateKiB >> 10) MiB")
                return run
            }
        } catch {
            for sandbox in idle { await pods.end(sandbox) }
            throw error
        }
        for sandbox in idle { await pods.end(sandbox) }
        return BenchReport(
            title: "Pods through an engine's CRI", command: command, sides: sides.map(\.name),
            facts: facts + [.init("engine", "\(engine.runtimeName) \(engine.runtimeVersion)")],
            comparisons: try Self.compare(results))
    }

    private func measure(_ pods: PodStarter, _ side: Side, _ name: String) async throws -> PodRun {
        try await side.prepare()
        let pod = try await pods.start(side.handler, name)
        var run = pod.times
        do {
            try side.check(pod.sandbox)
            try await Task.sleep(for: Self.settleTime)
            run.memory = try PodProcesses.memory(ofSandbox: pod.sandbox)
            let begin = ContinuousClock.now
            try await pods.remove(pod.sandbox)
            run.end = (ContinuousClock.now - begin) / .milliseconds(1)
        } catch {
            await pods.end(pod.sandbox)
            throw error
        }
        return run
    }

    /// - Parameter results: for each side, its rounds.
    static func compare(_ results: [[PodRun]]) throws -> [Comparison] {
        let figures: [(String, String, (PodRun) -> Double)] = [
            ("until the container runs", "ms", { $0.sandbox + $0.create + $0.start }),
            ("RunPodSandbox", "ms", { $0.sandbox }),
            ("CreateContainer", "ms", { $0.create }),
            ("StartContainer", "ms", { $0.start }),
            ("stop and remove the pod", "ms", { $0.end }),
            ("private memory", "MiB", { Double($0.memory.privateKiB) / 1024 }),
            ("proportional memory", "MiB", { Double($0.memory.proportionalKiB) / 1024 }),
            ("guest memory in use", "MiB", { Double($0.memory.guestKiB) / 1024 }),
            ("guest memory of this pod alone", "MiB", { Double($0.memory.guestOwnKiB) / 1024 }),
        ]
        return try figures.map { name, unit, figure in
            let sides = try results.map { runs in
                guard let samples = Samples(runs.map(figure)) else { throw BenchError("nothing was measured") }
                return samples
            }
            return Comparison(name, unit: unit, better: .lower, sides: sides)
        }
    }
}
