import FoundationEssentials
import Glibc
import LinuxSystem

/// `martlet bench storm`: how long `exec true` takes in one pod while another does what it can to disturb the node, and what the
/// host's processes of the other use meanwhile.
public struct StormBench: Sendable {
    /// Absolute path of `martlet`.
    public var martlet: String
    public var configurationFile: String?
    /// The state of the pods.
    public var root: String
    /// The memory of each pod's machine.
    public var machineMiB: Int
    /// How often `exec true` is run in each storm.
    public var samples = 20
    /// How long a storm goes on before the first of them.
    public var settleTime = Duration.seconds(3)
    /// How long the start of a pod, or one `exec`, may take.
    public var timeout = Duration.seconds(120)

    public init(martlet: String, configurationFile: String?, root: String, machineMiB: Int) {
        self.martlet = martlet
        self.configurationFile = configurationFile
        self.root = root
        self.machineMiB = machineMiB
    }

    /// Starts a pod that sleeps, then one after the other a pod for each storm.
    ///
    /// - Parameters:
    ///   - bundle: creates a bundle for a storm, and returns its directory.
    ///   - progress: called with a message after each storm.
    public func run(
        _ storms: [Storm], command: String, facts: [BenchReport.Fact], bundle: (Storm) throws -> String,
        progress: (String) -> Void
    ) async throws -> StormReport {
        let victim = try start("victim", bundle(.quiet))
        defer { victim.end() }
        try victim.waitForMessage(timeout)
        var rows: [StormReport.Row] = []
        for storm in storms {
            let directory = try bundle(storm)
            let row = try await onThread("bench") { try measure(storm, directory, beside: victim) }
            progress("\(storm.name): \(Figures.range(row.latency, Figures.short)) ms, \(row.memoryMiB) MiB")
            rows.append(row)
        }
        return StormReport(command: command, facts: facts, rows: rows)
    }

    private func measure(_ storm: Storm, _ bundle: String, beside victim: ServingPod) throws -> StormReport.Row {
        let pod = try start("storm-\(storm.name)", bundle)
        defer { pod.end() }
        try pod.waitForMessage(timeout)
        try pod.discardOutput()
        let load = try PodLoad(pod.state(), guestMemory: machineMiB << 20)
        usleep(UInt32(settleTime / .microseconds(1)))
        var latencies: [Double] = []
        for _ in 0..<samples {
            latencies.append(try execTrue(in: victim))
            try load.sample()
        }
        guard let latency = Samples(latencies) else { throw BenchError("nothing was measured") }
        return StormReport.Row(
            name: storm.name, summary: storm.summary, latency: latency, memoryMiB: load.maximum.memory >> 20,
            threads: load.maximum.threads, memoryLimitMiB: load.limits.memory.map { $0 >> 20 },
            threadLimit: load.limits.threads)
    }

    private func start(_ name: String, _ bundle: String) throws -> ServingPod {
        try ServingPod(
            martlet: martlet, id: "bench-\(getpid())-\(name)", bundle: bundle, configuration: configurationFile,
            root: root)
    }

    /// - Returns: milliseconds.
    private func execTrue(in pod: ServingPod) throws -> Double {
        let begin = ContinuousClock.now
        let child = try pod.start(["exec", pod.id, "/bin/true"])
        guard let end = child.waitForEnd(timeout: timeout) else {
            child.signal(SIGKILL)
            throw BenchError("martlet exec did not end within \(timeout)")
        }
        guard end == .exited(0) else { throw BenchError("martlet exec \(end)") }
        return (ContinuousClock.now - begin) / .milliseconds(1)
    }
}
