import FoundationEssentials
import Glibc
import LinuxSystem

/// `martlet bench net`: TCP between the host and a container, in either direction, over one hypervisor after the other.
///
/// Everything but the hypervisor is the same: pod, guest, tap, pairs of queues, MTU.
public struct NetBench: Sendable {
    /// Absolute path of `martlet`.
    public var martlet: String
    /// A configuration for all sides, TOML; what makes a side goes before it.
    public var settings = ""
    /// Absolute path of iperf3 on the host.
    public var iperf3: String
    /// How long one direction is measured.
    public var seconds = 5
    /// Of the interfaces, bytes.
    public var mtu: UInt32 = 1500
    /// How long a pod may take until it listens, and more than `seconds` a measurement.
    public var timeout = Duration.seconds(120)

    public init(martlet: String, iperf3: String) {
        self.martlet = martlet
        self.iperf3 = iperf3
    }

    /// The two directions of one run, bits a second.
    struct Rates: Sendable {
        var toGuest: Double
        var fromGuest: Double
    }

    /// Starts a pod of each side, then measures each once a round; the others idle meanwhile.
    ///
    /// - Parameters:
    ///   - command: what the report says was run.
    ///   - directory: for configurations and the pods' state.
    ///   - bundle: makes a bundle of a name that runs iperf3's server in the network namespace at a path, and answers its
    ///     directory.
    ///   - progress: hears of each run.
    public func run(
        rounds: Int, sides: [NetSide], command: String, facts: [BenchReport.Fact], directory: String,
        bundle: (_ name: String, _ namespace: String) throws -> String, progress: (String) -> Void
    ) async throws -> BenchReport {
        var stages: [Stage] = []
        defer { for stage in stages { stage.pod.end() } }
        for side in sides {
            let line = try NetLine(mtu: mtu)
            let pod = try NetPod(
                martlet: martlet, id: "bench-net-\(getpid())-\(side)", bundle: bundle("\(side)", line.podPath),
                configuration: side.write(settings, in: directory), root: "\(directory)/pods")
            stages.append(Stage(line: line, pod: pod))
            try pod.waitForMessage(timeout)
        }
        let results = try await Rounds.run(rounds, of: Array(sides.indices)) { round, side in
            let line = stages[side].line
            let rates = try await onThread("bench") { try measure(line) }
            let words = [rates.toGuest, rates.fromGuest].map { Figures.short($0 / 1e9) }
            progress("round \(round) of \(rounds), \(sides[side].rawValue): \(words.joined(separator: ", ")) Gbit/s")
            return rates
        }
        return BenchReport(
            title: "TCP between the host and a guest", command: command, sides: sides.map(\.rawValue), facts: facts,
            comparisons: try Self.compare(results))
    }

    private struct Stage: Sendable {
        var line: NetLine
        var pod: NetPod
    }

    private func measure(_ line: NetLine) throws -> Rates {
        func client(_ options: [String]) throws -> IperfReport {
            try line.iperf3(iperf3, seconds: seconds, options, within: timeout + .seconds(seconds))
        }
        // The host's clock for both: a guest's may leap.
        let toGuest = try client([])
        let fromGuest = try client(["--reverse"])
        return Rates(toGuest: try toGuest.rate(by: \.sent), fromGuest: try fromGuest.rate(by: \.received))
    }

    /// - Parameter results: of each side its rounds.
    static func compare(_ results: [[Rates]]) throws -> [Comparison] {
        let directions: [(String, KeyPath<Rates, Double>)] = [
            ("host to guest", \.toGuest), ("guest to host", \.fromGuest),
        ]
        return try directions.map { name, direction in
            let sides = try results.map { rounds in
                guard let samples = Samples(rounds.map { $0[keyPath: direction] / 1e9 }) else {
                    throw BenchError("nothing was measured")
                }
                return samples
            }
            return Comparison(name, unit: "Gbit/s", better: .higher, sides: sides)
        }
    }
}

/// What runs the pod.
public enum NetSide: String, CaseIterable, Sendable {
    case martlet = "built-in VMM"
    case qemu = "QEMU"
    case qemuWithVhost = "QEMU, vhost=on"

    private var settings: String {
        switch self {
        case .martlet: "hypervisor = \"kvm\"\n"
        case .qemu: "hypervisor = \"qemu\"\nqemu.accel = \"kvm\"\n"
        case .qemuWithVhost: "hypervisor = \"qemu\"\nqemu.accel = \"kvm\"\nqemu.vhost_net = true\n"
        }
    }

    /// Writes the configuration of this side; answers its path.
    func write(_ common: String, in directory: String) throws -> String {
        let own = "\(directory)/\(self)"
        // A drop-in goes before the file beside it.
        for path in [own, "\(own)/martlet.d"] { try check("mkdir", path, mkdir(path, 0o755)) }
        try Data(common.utf8).write(to: URL(filePath: "\(own)/martlet.toml"))
        try Data(settings.utf8).write(to: URL(filePath: "\(own)/martlet.d/side.toml"))
        return "\(own)/martlet.toml"
    }
}
