import Glibc
import Hypervisor
import LinuxSystem
import OCISpec

/// The limits of a pod's cgroup on the host: what the pod's processes there may use, its machine with all that runs it.
public struct HostCgroupLimits: Sendable, Equatable, Codable {
    /// Bytes; nil: none.
    var memory: Int64?
    var cpu: Linux.Resources.CPU?
    /// Processes and threads; nil: none.
    var pids: Int64?
    /// Whether the memory's is a bound that no engine asked for: a host that can't keep it runs the pod all the same.
    var isBound = false

    init(memory: Int64? = nil, cpu: Linux.Resources.CPU? = nil) { (self.memory, self.cpu) = (memory, cpu) }

    /// More than any pod's processes on the host have: each stream of a process has a thread.
    static let maximumPIDs: Int64 = 8192

    /// What no pod needs more of, whatever its guest does, where no engine limits it.
    ///
    /// - Parameter machine: with what the hypervisor may need for itself.
    init(bounding machine: VMConfiguration, _ driver: DriverChoice, hostMiB: Int) {
        // QEMU translates the guest's code into at most 1 GiB of the host's.
        let emulator: Int64 = if case .qemu(accelerator: .tcg, _, _, _) = driver { 1 << 30 } else { 0 }
        memory =
            Int64(machine.memoryMiB + max(hostMiB, 128)) << 20 + Int64(clamping: machine.filesMemoryLimit) + emulator
        pids = Self.maximumPIDs
        isBound = true
    }

    /// Those that follow from the container that the pod is made with. Its memory's is the guest's to keep; the host's holds for
    /// the whole machine with what runs it. Kubernetes limits its pods itself, in a cgroup above; where nobody limits a pod's memory
    /// it has a bound.
    ///
    /// - Parameters:
    ///   - bound: for a pod without limits.
    ///   - above: the least memory in bytes that a cgroup above has; nil: no limit.
    /// - Throws: `SandboxError.invalid` when that can't hold the machine.
    init(
        _ spec: Spec, _ request: PodRequest, machineMiB: Int, hostMiB: Int, bound: HostCgroupLimits = .init(),
        above: Int64?
    ) throws {
        pids = bound.pids
        if request.isKubernetes {
            if above == nil { (memory, isBound) = (bound.memory, bound.isBound) }
            return
        }
        let needed = Int64(machineMiB + hostMiB) << 20
        if let above, above < needed {
            throw SandboxError.invalid(
                "the pod's machine of \(machineMiB) MiB and its host processes (vm.host_mib, \(hostMiB) MiB) need "
                    + "\(machineMiB + hostMiB) MiB; a cgroup above linux.cgroupsPath has \(above >> 20) MiB")
        }
        let resources = spec.linux?.resources
        if resources?.memory?.limit ?? 0 > 0 {
            memory = needed
        } else if above == nil {
            (memory, isBound) = (bound.memory, bound.isBound)
        }
        cpu = resources?.cpu
    }

    /// The files that say them, in the order of writing.
    func files(version2: Bool) -> [(name: String, value: String)] {
        var files: [(name: String, value: String)] = []
        if let memory { files.append((version2 ? "memory.max" : "memory.limit_in_bytes", "\(memory)")) }
        if let pids { files.append(("pids.max", "\(pids)")) }
        guard let cpu else { return files }
        let period = cpu.period.flatMap { $0 > 0 ? $0 : nil }
        // Engines write 0 for what was not asked for.
        let quota = cpu.quota.flatMap { $0 != 0 ? $0 : nil }
        if version2 {
            if quota != nil || period != nil {
                let limit = quota.map { $0 > 0 ? "\($0)" : "max" } ?? "max"
                files.append(("cpu.max", period.map { "\(limit) \($0)" } ?? limit))
            }
            if let weight { files.append(("cpu.weight", "\(weight)")) }
            if let burst = cpu.burst { files.append(("cpu.max.burst", "\(burst)")) }
        } else {
            if let period { files.append(("cpu.cfs_period_us", "\(period)")) }
            if let quota { files.append(("cpu.cfs_quota_us", "\(quota > 0 ? quota : -1)")) }
            if let shares = cpu.shares, shares > 0 { files.append(("cpu.shares", "\(shares)")) }
            if let burst = cpu.burst { files.append(("cpu.cfs_burst_us", "\(burst)")) }
        }
        // After the weight, which an idle group does not have. Other numbers the guest refuses.
        if let idle = cpu.idle, (0...1).contains(idle) { files.append(("cpu.idle", "\(idle)")) }
        if !cpu.cpus.isEmpty { files.append(("cpuset.cpus", cpu.cpus)) }
        if !cpu.mems.isEmpty { files.append(("cpuset.mems", cpu.mems)) }
        return files
    }

    /// Version 2's, from shares of 2 to 262144: the formula that runc has.
    var weight: UInt64? {
        guard let shares = cpu?.shares, shares > 0 else { return nil }
        return 1 + (min(max(shares, 2), 262_144) - 2) * 9999 / 262_142
    }

    /// The controllers that they are of.
    static let controllers = ["cpu", "cpuset", "memory", "pids"]

    /// Writes them to a cgroup's directories, one in each hierarchy.
    ///
    /// - Throws: `SystemError` that names file and value, and `SandboxError.unsupported` where no hierarchy has the file.
    func apply(to directories: [String]) throws {
        var found = Set<String>()
        for directory in directories {
            let version2 = access("\(directory)/cgroup.controllers", F_OK) == 0
            var postponed: [(name: String, value: String)] = []
            for file in files(version2: version2) where access("\(directory)/\(file.name)", F_OK) == 0 {
                found.insert(Self.controller(file.name))
                do { try writeText(file.value, to: "\(directory)/\(file.name)") } catch {
                    // With the quota of before it may be more than the cgroup above has.
                    if file.name == "cpu.cfs_period_us", cpu?.quota ?? 0 != 0, error.errno == .invalidArgument {
                        postponed.append(file)
                    } else if isPromised(file.name) {
                        throw error
                    }
                }
            }
            for file in postponed { try writeText(file.value, to: "\(directory)/\(file.name)") }
        }
        let needed = files(version2: true).filter { isPromised($0.name) }.map { Self.controller($0.name) }
        if let missing = needed.first(where: { !found.contains($0) }) {
            throw SandboxError.unsupported("linux.resources: the host's cgroups have no controller \(missing)")
        }
    }

    /// Whether somebody has asked for what a file says. A weight is no promise, and a bound is the host's own.
    private func isPromised(_ file: String) -> Bool {
        !["cpu.weight", "cpu.shares", "cpu.idle", "pids.max"].contains(file) && !(isBound && file.hasPrefix("memory."))
    }

    private static func controller(_ file: String) -> String { String(file.prefix { $0 != "." }) }
}
