import FoundationEssentials

/// The results of `martlet bench start`.
public struct StartReport: Sendable, Codable {
    /// A phase of a `martlet run`; its samples are milliseconds.
    public struct Phase: Sendable, Codable {
        public var name: String
        public var samples: Samples
    }

    /// The memory that a guest has touched when its agent is ready, MiB.
    public struct TouchedMemory: Sendable {
        /// With huge pages where the configuration has them.
        public var asConfigured: Double
        /// Without huge pages, which are allocated 2 MiB at a time.
        public var inSmallPages: Double
    }

    public var title: String
    public var command: String
    public var facts: [BenchReport.Fact]
    /// The duration of `martlet run … true`, milliseconds.
    public var run: Samples
    public var phases: [Phase]
    /// The memory of one pod's host processes while another pod runs.
    public var memory: [ProcessMemory]
    /// Nil with another driver than the built-in VMM.
    public var touched: TouchedMemory?
    /// The time from the VMM's exec to the agent's first message, beside QEMU; nil without `--against`.
    public var start: Comparison?
    /// The time to the first message of `TinyGuest`: the VMM's part of a start.
    public var startOfTinyGuest: Comparison?

    /// Pods that ran at the same time.
    public var densities: [IdlePods] = []
    /// Starts of machines that took turns, the cold ones last; empty where the driver is not the built-in VMM.
    public var starts: [MachineStart] = []

    /// One way to start a machine.
    public struct MachineStart: Sendable, Codable {
        /// A `StartKind`.
        public var kind: String
        /// From the exec of `martlet-vmm`, or from the moment at which a machine of the pool is taken, to the agent's first answer.
        public var milliseconds: Samples
        /// What the start made the host do; nil without starts.
        public var counts: StartCounts?
    }

    private func start(_ kind: StartKind) -> MachineStart? { starts.first { $0.kind == kind.rawValue } }

    private enum CodingKeys: String, CodingKey {
        case title, command, facts, run, phases, memory, start, starts
        case densities = "pods"
        case poolRatio = "pool_ratio"
        case poolModelled = "pool_modelled_ms"
        case templateRatio = "template_ratio"
        case modelled = "modelled_ms"
        case guestMiB = "guest_touched_mib"
        case touched = "guest_touched_cold_mib"
        case touchedInSmallPages = "guest_touched_small_pages_mib"
        case startOfTinyGuest = "start_vmm"
        case ratio
        case ratioOfTinyGuest = "ratio_vmm"
    }

    /// The first side's median divided by the second's. Below 1, the first side is faster.
    static func ratio(_ comparison: Comparison?) -> Double? {
        guard let sides = comparison?.sides, sides.count == 2, sides[1].median > 0 else { return nil }
        return sides[0].median / sides[1].median
    }

    public var ratio: Double? { Self.ratio(start) }
    public var ratioOfTinyGuest: Double? { Self.ratio(startOfTinyGuest) }

    /// The median of a kind of start by that of the cold one.
    private func ratio(_ kind: StartKind) -> Double? {
        guard let some = start(kind), let cold = start(.cold), cold.milliseconds.median > 0 else { return nil }
        return some.milliseconds.median / cold.milliseconds.median
    }
    public var templateRatio: Double? { ratio(.template) }
    public var poolRatio: Double? { ratio(.pool) }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(title, forKey: .title)
        try container.encode(command, forKey: .command)
        try container.encode(facts, forKey: .facts)
        try container.encode(run, forKey: .run)
        try container.encode(phases, forKey: .phases)
        try container.encode(memory, forKey: .memory)
        try container.encodeIfPresent(touched?.asConfigured, forKey: .touched)
        try container.encodeIfPresent(touched?.inSmallPages, forKey: .touchedInSmallPages)
        try container.encodeIfPresent(start, forKey: .start)
        try container.encodeIfPresent(startOfTinyGuest, forKey: .startOfTinyGuest)
        if !densities.isEmpty { try container.encode(densities, forKey: .densities) }
        if !starts.isEmpty { try container.encode(starts, forKey: .starts) }
        let counts = (start(.template) ?? start(.cold))?.counts
        try container.encodeIfPresent(templateRatio, forKey: .templateRatio)
        try container.encodeIfPresent(counts?.modelledMilliseconds, forKey: .modelled)
        try container.encodeIfPresent(poolRatio, forKey: .poolRatio)
        try container.encodeIfPresent(start(.pool)?.counts?.modelledMilliseconds, forKey: .poolModelled)
        try container.encodeIfPresent(
            start(.template) == nil ? touched?.asConfigured : counts?.guestMiB, forKey: .guestMiB)
        try container.encodeIfPresent(ratio, forKey: .ratio)
        try container.encodeIfPresent(ratioOfTinyGuest, forKey: .ratioOfTinyGuest)
    }

    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        title = try container.decode(String.self, forKey: .title)
        command = try container.decode(String.self, forKey: .command)
        facts = try container.decode([BenchReport.Fact].self, forKey: .facts)
        run = try container.decode(Samples.self, forKey: .run)
        phases = try container.decode([Phase].self, forKey: .phases)
        memory = try container.decode([ProcessMemory].self, forKey: .memory)
        if let asConfigured = try container.decodeIfPresent(Double.self, forKey: .touched) {
            touched = TouchedMemory(
                asConfigured: asConfigured,
                inSmallPages: try container.decode(Double.self, forKey: .touchedInSmallPages))
        }
        start = try container.decodeIfPresent(Comparison.self, forKey: .start)
        startOfTinyGuest = try container.decodeIfPresent(Comparison.self, forKey: .startOfTinyGuest)
        densities = try container.decodeIfPresent([IdlePods].self, forKey: .densities) ?? []
        starts = try container.decodeIfPresent([MachineStart].self, forKey: .starts) ?? []
    }

    init(
        command: String, facts: [BenchReport.Fact], run: Samples, phases: [Phase], memory: [ProcessMemory],
        touched: TouchedMemory?, start: Comparison?, startOfTinyGuest: Comparison?
    ) {
        title = "Starting a container in a virtual machine"
        self.command = command
        self.facts = facts
        self.run = run
        self.phases = phases
        self.memory = memory
        self.touched = touched
        self.start = start
        self.startOfTinyGuest = startOfTinyGuest
    }

    /// The report as JSON.
    public func json() throws -> String { try jsonText(self) }

    // MARK: Tables

    static let sides = ["martlet-vmm", "QEMU microvm"]

    private var comparisons: [Comparison] { [start, startOfTinyGuest].compactMap { $0 } }

    var phaseRows: [[String]] {
        [["martlet run", "ms"]] + phases.map { ["  " + $0.name, Figures.range($0.samples, Figures.short)] }
            + [["  total", Figures.range(run, Figures.short)]]
    }

    var memoryRows: [[String]] {
        func row(_ memory: ProcessMemory) -> [String] {
            ["  " + memory.process]
                + [memory.privateKiB, memory.proportionalKiB, memory.guestKiB].map { Figures.short(Double($0) / 1024) }
        }
        return [["memory on the host, MiB", "private", "proportional", "guest"]] + memory.map(row) + [row(memory.total)]
    }

    var touchedRows: [[String]] {
        guard let touched else { return [] }
        return [
            ["guest memory touched when the agent is ready", "MiB"],
            ["  as configured", Figures.short(touched.asConfigured)],
            ["  without huge pages", Figures.short(touched.inSmallPages)],
        ]
    }

    var comparisonRows: [[String]] {
        if comparisons.isEmpty { return [] }
        return [["from exec to the guest's first message, ms"] + Self.sides + ["ratio"]]
            + comparisons.map { comparison in
                ["  " + comparison.name] + comparison.sides.map { Figures.range($0, Figures.short) }
                    + [Self.ratio(comparison).map { Figures.fixed($0, 3) } ?? "–"]
            }
    }

    var densityRows: [[String]] {
        if densities.isEmpty { return [] }
        return [
            [
                "pods at once; MiB of each", "started, ms", "failed", "private", "proportional", "guest, own",
                "guest, shared",
            ]
        ]
            + densities.map { pods in
                ["  \(pods.pods)", Figures.short(pods.startTime), "\(pods.failures.count)"]
                    + [pods.privateKiB, pods.proportionalKiB, pods.guestOwnKiB, pods.guestSharedKiB]
                    .map { Figures.short(Double($0) / 1024) }
            }
    }

    var templateRows: [[String]] {
        if starts.count < 2 { return [] }
        return [["a machine's start until the agent's first answer", "ms", "by cold"]]
            + starts.map { start in
                let ratio = StartKind(rawValue: start.kind).flatMap(ratio)
                return [
                    "  " + start.kind, Figures.range(start.milliseconds, Figures.short),
                    ratio.map { Figures.fixed($0, 3) } ?? "–",
                ]
            }
    }

    /// The counts, with what they add up to.
    var countRows: [[String]] {
        let counted = starts.compactMap { start in start.counts.map { (kind: start.kind, counts: $0) } }
        guard let first = counted.first?.counts else { return [] }
        func row(_ name: String, _ value: (StartCounts) -> String) -> [String] {
            ["  " + name] + counted.map { value($0.counts) }
        }
        return [["counted on the host during a start"] + counted.map(\.kind)]
            + first.events.keys.sorted().map { key in row(key) { "\($0.events[key] ?? 0)" } }
            + [
                row("copied into the guest, MiB") { Figures.short($0.copiedMiB) },
                row("guest memory of its own, MiB") { Figures.short($0.guestMiB) },
                row("guest memory that is shared, MiB") { Figures.short($0.sharedMiB) },
                row("modelled on hardware, ms") { $0.modelledMilliseconds.map(Figures.short) ?? "–" },
            ]
    }

    /// The report as tables for a terminal.
    public func table() -> String {
        var lines = [title, ""]
        for rows in [
            phaseRows, memoryRows, touchedRows, densityRows, comparisonRows, templateRows, countRows,
        ] where !rows.isEmpty {
            lines += BenchReport.aligned(rows) + [""]
        }
        lines.append("median (minimum–maximum) of \(run.values.count) runs")
        lines += facts.map { "\($0.name): \($0.value)" }
        return lines.joined(separator: "\n")
    }
}
