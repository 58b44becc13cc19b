import GuestSystem
public import OCISpec

/// Limits as the files of a cgroup v2 and what is written to each, in order.
///
/// Sources: runtime-spec config-linux.md, "Control groups"; Documentation/admin-guide/cgroup-v2.rst; the conversions are those
/// of runc (opencontainers/cgroups, utils.go and fs2/), so that the same configuration means the same.
public struct ResourcePlan: Sendable, Equatable {
    public struct Setting: Sendable, Equatable {
        /// The property that asks for it: `linux.resources.memory.limit`.
        public var field: String
        /// Of the cgroup: `memory.max`.
        public var file: String
        public var value: String
    }

    public private(set) var settings: [Setting] = []
    /// Processors and memory nodes that must be there: the kernel takes others in silence.
    public private(set) var processors: String
    public private(set) var nodes: String
    /// Whether a memory limit below what is used already is refused.
    public private(set) var checksUsage: Bool

    static let name = "linux.resources"

    /// `current` are the limits in force, where a running container's are changed: what the new ones leave out and a
    /// conversion needs comes from there.
    ///
    /// Throws what can't be or is not done, by name.
    public init(_ resources: Linux.Resources, current: Linux.Resources = .init()) throws(AgentFailure) {
        if let refused = resources.unsupported().first(where: { $0.verdict == .refuse }) {
            throw AgentFailure(.unimplemented, refused.description)
        }
        processors = resources.cpu?.cpus ?? ""
        nodes = resources.cpu?.mems ?? ""
        checksUsage = resources.memory?.checkBeforeUpdate ?? false
        if let pids = resources.pids?.limit { add("pids.limit", "pids.max", pids > 0 ? "\(pids)" : "max") }
        if let memory = resources.memory { try plan(memory, current.memory) }
        if let cpu = resources.cpu { plan(cpu, current.cpu) }
        for device in resources.rdma.keys.sorted() {
            let limit = resources.rdma[device]
            let parts = [("hca_handle", limit?.hcaHandles), ("hca_object", limit?.hcaObjects)]
            let entries = parts.compactMap { name, value in value.map { "\(name)=\($0)" } }
            if !entries.isEmpty { add("rdma.\(device)", "rdma.max", "\(device) \(entries.joined(separator: " "))") }
        }
        for key in resources.unified.keys.sorted() {
            // A name in the cgroup's own directory.
            guard !key.isEmpty, !key.contains("/"), key != ".", key != ".." else {
                throw AgentFailure(.invalidArgument, "\(Self.name).unified: \"\(key)\" is not a file of a cgroup")
            }
            add("unified.\(key)", key, resources.unified[key] ?? "")
        }
    }

    private mutating func add(_ field: String, _ file: String, _ value: String) {
        settings.append(Setting(field: "\(Self.name).\(field)", file: file, value: value))
    }

    private mutating func plan(
        _ memory: Linux.Resources.Memory, _ current: Linux.Resources.Memory?
    ) throws(AgentFailure) {
        if let swap = try Self.swap(memory.swap ?? 0, limit: memory.limit ?? current?.limit ?? 0) {
            add("memory.swap", "memory.swap.max", swap)
        }
        if let limit = Self.amount(memory.limit) { add("memory.limit", "memory.max", limit) }
        if let reservation = Self.amount(memory.reservation) { add("memory.reservation", "memory.low", reservation) }
    }

    private mutating func plan(_ cpu: Linux.Resources.CPU, _ current: Linux.Resources.CPU?) {
        if let idle = cpu.idle { add("cpu.idle", "cpu.idle", "\(idle)") }
        // An idle group has no weight, and the kernel refuses to set one.
        if let shares = cpu.shares, shares != 0, (cpu.idle ?? current?.idle ?? 0) == 0 {
            add("cpu.shares", "cpu.weight", "\(Self.weight(shares: shares))")
        }
        let (quota, period) = (cpu.quota ?? 0, cpu.period ?? 0)
        if quota != 0 || period != 0 {
            let held = quota == 0 ? current?.quota ?? 0 : quota
            let share = held > 0 ? "\(held)" : "max"
            add(quota == 0 ? "cpu.period" : "cpu.quota", "cpu.max", period == 0 ? share : "\(share) \(period)")
        }
        if let burst = cpu.burst { add("cpu.burst", "cpu.max.burst", "\(burst)") }
        if !cpu.cpus.isEmpty { add("cpu.cpus", "cpuset.cpus", cpu.cpus) }
        if !cpu.mems.isEmpty { add("cpu.mems", "cpuset.mems", cpu.mems) }
    }

    /// nil: nothing to write.
    static func amount(_ bytes: Int64?) -> String? {
        guard let bytes, bytes != 0 else { return nil }
        return bytes < 0 ? "max" : "\(bytes)"
    }

    /// The specification's limit is of memory and swap together, the kernel's of swap alone.
    static func swap(_ both: Int64, limit: Int64) throws(AgentFailure) -> String? {
        if both < 0 || (both == 0 && limit < 0) { return "max" }
        if both == 0 { return nil }
        guard limit > 0 else {
            throw AgentFailure(.invalidArgument, "\(name).memory.swap: \(both) without a memory limit")
        }
        guard both >= limit else {
            throw AgentFailure(.invalidArgument, "\(name).memory.swap: \(both) is less than the memory limit \(limit)")
        }
        return "\(both - limit)"
    }
}
