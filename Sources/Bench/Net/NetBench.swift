import FoundationEssentials
import Glibc
import LinuxSystem

/// `martlet bench net`: TCP between the host and a container, in either direction, over one hypervisor after the other.
///
/// Everything but the hypervisor is the same: pod, guest, tap, pairs of queues, MTU.
public struct NetBench: Sendable {
    /// Absolute path of `martlet`.
    public var martlet: String
    /// The configuration of all sides, TOML. The settings of a side override it.
    public var settings = ""
    /// Absolute path of iperf3 on the host.
    public var iperf3: String
    /// How long one direction is measured, seconds.
    public var seconds = 5
    /// The MTU of the interfaces, bytes.
    public var mtu: UInt32 = 1500
    /// How long a pod may take to listen, and a measurement may take beyond `seconds`.
    public var timeout = Duration.seconds(120)

    public init(martlet: String, iperf3: String) {
        self.martlet = martlet
        self.iperf3 = iperf3
    }

    /// The rates of both directions in one run, bits per second.
    struct Rates: Sendable {
        var toGuest: Double
        var fromGuest: Double
    }

    /// Starts a pod of each side, then measures each once a round; the others idle meanwhile.
    ///
    /// - Parameters:
    ///   - command: what the report says was run.
    ///   - directory: for configurations and the pods' state.
    ///   - bundle: creates a bundle with the name, which runs iperf3's server in the network namespace at the path, and returns its
    ///     directory.
    ///   - progress: called with a message after each run.
    public func run(
        rounds: Int, sides: [NetSide], command: String, facts: [BenchReport.Fact], directory: String,
        bundle: (_ name: String, _ namespace: String) throws -> String, progress: (String) -> Void
    ) async throws -> BenchReport {
        var setups: [Setup] = []
        defer { for setup in setups { setup.pod.end() } }
        for side in sides {
            let veth = try VethPair(mtu: mtu)
            let pod = try ServingPod(
                martlet: martlet, id: "bench-net-\(getpid())-\(side)", bundle: bundle("\(side)", veth.podPath),
                configuration: side.write(settings, in: directory), root: "\(directory)/pods")
            setups.append(Setup(veth: veth, pod: pod))
            try pod.waitForMessage(timeout)
        }
        let results = try await Rounds.run(rounds, of: Array(sides.indices)) { round, side in
            let veth = setups[side].veth
            let rates = try await onThread("bench") { try measure(veth) }
            let figures = [rates.toGuest, rates.fromGuest].map { Figures.short($0 / 1e9) }
            progress("round \(round) of \(rounds), \(sides[side].rawValue): \(figures.joined(separator: ", ")) Gbit/s")
            return rates
        }
        return BenchReport(
            title: "TCP between the host and a guest", command: command, sides: sides.map(\.rawValue), facts: facts,
            comparisons: try Self.compare(results))
    }

    private struct Setup: Sendable {
        var veth: VethPair
        var pod: ServingPod
    }

    private func measure(_ veth: VethPair) throws -> Rates {
        func client(_ options: [String]) throws -> IperfReport {
            try veth.iperf3(iperf3, seconds: seconds, options, within: timeout + .seconds(seconds))
        }
        // The host's clock counts for both directions, because a guest's clock may jump.
        let toGuest = try client([])
        let fromGuest = try client(["--reverse"])
        return Rates(toGuest: try toGuest.rate(by: \.sent), fromGuest: try fromGuest.rate(by: \.received))
    }

    /// - Parameter results: for each side, the rates of its rounds.
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

/// What runs the pod: a side of the comparison.
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

    /// Writes the configuration of this side.
    ///
    /// - Returns: its path.
    func write(_ common: String, in directory: String) throws -> String {
        let own = "\(directory)/\(self)"
        // A drop-in overrides the file beside it.
        for path in [own, "\(own)/martlet.d"] { try check("mkdir", path, mkdir(path, 0o755)) }
        try Data(common.utf8).write(to: URL(filePath: "\(own)/martlet.toml"))
        try Data(settings.utf8).write(to: URL(filePath: "\(own)/martlet.d/side.toml"))
        return "\(own)/martlet.toml"
    }
}
