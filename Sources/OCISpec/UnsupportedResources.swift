extension Linux.Resources {
    /// A limit that has no effect in a guest: it has no swap, no huge pages, other device numbers than the host, and only cgroup v2.
    private struct Ineffective: Sendable {
        var field: String
        var reason: String
        var isSet: @Sendable (Linux.Resources) -> Bool
        var clear: @Sendable (inout Linux.Resources) -> Void
    }

    private static let ineffective: [Ineffective] = {
        let none = "cgroup v2 has no such limit"
        let number = "a device number of the host means nothing in the guest"
        let weight = "the guest's kernel does not weigh disks"
        return [
            .init(field: "memory.swappiness", reason: "the guest has no swap") {
                $0.memory?.swappiness != nil
            } clear: {
                $0.memory?.swappiness = nil
            },
            .init(field: "memory.kernel", reason: none) {
                ($0.memory?.kernel ?? 0) > 0
            } clear: {
                $0.memory?.kernel = nil
            },
            .init(field: "memory.kernelTCP", reason: none) {
                ($0.memory?.kernelTCP ?? 0) > 0
            } clear: {
                $0.memory?.kernelTCP = nil
            },
            .init(field: "memory.disableOOMKiller", reason: "cgroup v2 can't do without it") {
                $0.memory?.disableOOMKiller == true
            } clear: {
                $0.memory?.disableOOMKiller = nil
            },
            .init(field: "memory.useHierarchy", reason: "cgroup v2 always counts what is below") {
                $0.memory?.useHierarchy == false
            } clear: {
                $0.memory?.useHierarchy = nil
            },
            .init(field: "cpu.realtimeRuntime", reason: none) {
                ($0.cpu?.realtimeRuntime ?? 0) != 0
            } clear: {
                $0.cpu?.realtimeRuntime = nil
            },
            .init(field: "cpu.realtimePeriod", reason: none) {
                ($0.cpu?.realtimePeriod ?? 0) != 0
            } clear: {
                $0.cpu?.realtimePeriod = nil
            },
            .init(field: "blockIO.weight", reason: weight) {
                ($0.blockIO?.weight ?? 0) != 0
            } clear: {
                $0.blockIO?.weight = nil
            },
            .init(field: "blockIO.leafWeight", reason: weight) {
                ($0.blockIO?.leafWeight ?? 0) != 0
            } clear: {
                $0.blockIO?.leafWeight = nil
            },
            .init(field: "blockIO.weightDevice", reason: number) {
                $0.blockIO?.weightDevice.isEmpty == false
            } clear: {
                $0.blockIO?.weightDevice = []
            },
            .init(field: "blockIO.throttleReadBpsDevice", reason: number) {
                $0.blockIO?.throttleReadBpsDevice.isEmpty == false
            } clear: {
                $0.blockIO?.throttleReadBpsDevice = []
            },
            .init(field: "blockIO.throttleWriteBpsDevice", reason: number) {
                $0.blockIO?.throttleWriteBpsDevice.isEmpty == false
            } clear: {
                $0.blockIO?.throttleWriteBpsDevice = []
            },
            .init(field: "blockIO.throttleReadIOPSDevice", reason: number) {
                $0.blockIO?.throttleReadIOPSDevice.isEmpty == false
            } clear: {
                $0.blockIO?.throttleReadIOPSDevice = []
            },
            .init(field: "blockIO.throttleWriteIOPSDevice", reason: number) {
                $0.blockIO?.throttleWriteIOPSDevice.isEmpty == false
            } clear: {
                $0.blockIO?.throttleWriteIOPSDevice = []
            },
            // A limit of 0, which kubelet sets for each size, is always met.
            .init(field: "hugepageLimits", reason: "the guest has no huge pages") {
                $0.hugepageLimits.contains { $0.limit != 0 }
            } clear: {
                $0.hugepageLimits = []
            },
            .init(field: "network", reason: none) {
                $0.network.map { ($0.classID ?? 0) != 0 || !$0.priorities.isEmpty } ?? false
            } clear: {
                $0.network = nil
            },
        ]
    }()

    /// All limits that are set and have no effect. Field names start with `name`.
    public func unsupported(
        _ name: String = "linux.resources", policy: Unsupported.Policy = .init()
    ) -> [Unsupported] {
        var found = Self.ineffective.filter { $0.isSet(self) }.map {
            Unsupported(field: "\(name).\($0.field)", verdict: policy.ineffectiveLimits, reason: $0.reason)
        }
        // By default engines allow as much swap as memory.
        if let memory, let limit = memory.limit, limit > 0, let swap = memory.swap, swap > limit {
            found.append(
                .init(
                    field: "\(name).memory.swap", verdict: .warn,
                    reason: "the guest has no swap: only the memory limit applies"))
        }
        return found
    }

    /// Removes the limits that have no effect, because the agent refuses them. Used when the policy is to warn.
    public mutating func removeIneffectiveLimits() {
        for limit in Self.ineffective where limit.isSet(self) { limit.clear(&self) }
    }

    /// Applies the limits that `changed` sets. Others stay as they are.
    public mutating func update(with changed: Linux.Resources) {
        if let new = changed.memory {
            var memory = memory ?? .init()
            memory.limit = new.limit ?? memory.limit
            memory.reservation = new.reservation ?? memory.reservation
            memory.swap = new.swap ?? memory.swap
            self.memory = memory
        }
        if let new = changed.cpu {
            var cpu = cpu ?? .init()
            cpu.shares = new.shares ?? cpu.shares
            cpu.quota = new.quota ?? cpu.quota
            cpu.period = new.period ?? cpu.period
            cpu.burst = new.burst ?? cpu.burst
            cpu.idle = new.idle ?? cpu.idle
            if !new.cpus.isEmpty { cpu.cpus = new.cpus }
            if !new.mems.isEmpty { cpu.mems = new.mems }
            self.cpu = cpu
        }
        pids = changed.pids ?? pids
        rdma.merge(changed.rdma) { $1 }
        unified.merge(changed.unified) { $1 }
    }
}
