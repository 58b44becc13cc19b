import Hypervisor
import OCISpec

/// vCPUs and memory of a pod's machine: what its containers' limits ask for.
struct MachineSize: Sendable, Equatable {
    var vcpus: Int
    var memoryMiB: Int

    init(vcpus: Int, memoryMiB: Int) { (self.vcpus, self.memoryMiB) = (vcpus, memoryMiB) }

    /// What a machine has when its guest begins.
    init(_ machine: VMConfiguration) { self.init(vcpus: machine.vcpus, memoryMiB: machine.memoryMiB) }

    init(_ sizing: Sizing) { self.init(vcpus: sizing.vcpus, memoryMiB: sizing.memoryMiB) }

    /// The larger of each.
    func union(_ other: MachineSize) -> MachineSize {
        MachineSize(vcpus: max(vcpus, other.vcpus), memoryMiB: max(memoryMiB, other.memoryMiB))
    }

    /// What containers with these limits need together; one without a limit counts for nothing.
    ///
    /// - Parameter overheadMiB: of the guest (`vm.overhead_mib`).
    init(of limits: [ContainerLimits], overheadMiB: Int) {
        // Each is less than 1 << 60 bytes, and 32 bits of CPUs.
        let memory = limits.reduce(0) { $0 + Sizing.mebibytes(for: $1.memory) }
        let vcpus = max(limits.reduce(0) { $0 + $1.cpus }, limits.map(\.lastCPU).max() ?? 0)
        self.init(vcpus: vcpus, memoryMiB: memory > 0 ? memory + overheadMiB : 0)
    }
}

/// Limits of a container that its pod's machine follows.
struct ContainerLimits: Sendable, Equatable {
    /// Bytes; 0: none.
    var memory: Int64 = 0
    /// Microseconds of each period; 0: none.
    private var quota: Int64 = 0
    private var period: Int64 = 0
    /// The number of the last CPU that it may use, plus one; 0: any.
    private(set) var lastCPU = 0

    init(_ resources: Linux.Resources?) {
        if let resources { change(to: resources) }
    }

    /// What `resources` leaves out stays as it is; a negative number takes the limit away.
    mutating func change(to resources: Linux.Resources) {
        if let limit = resources.memory?.limit, limit != 0 {
            memory = limit > 0 && limit < Sizing.unlimited ? limit : 0
        }
        if let quota = resources.cpu?.quota, quota != 0 { self.quota = max(0, quota) }
        if let period = resources.cpu?.period, period > 0 { self.period = Int64(clamping: period) }
        if let list = resources.cpu?.cpus, !list.isEmpty { lastCPU = Sizing.cpus(upToLastOf: list) }
    }

    /// CPUs that it may use, rounded up; the default period is cgroup's (cgroup-v2.rst, cpu.max).
    var cpus: Int { min(Sizing.cpus(quota: quota, period: period), 1 << 20) }
}
