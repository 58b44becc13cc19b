import Glibc
import LinuxSystem
import OCISpec

/// The limits of a pod's cgroup on the host: what the pod's processes there may use, its machine with all that runs it.
public struct HostCgroupLimits: Sendable, Equatable, Codable {
    /// Bytes; nil: none.
    var memory: Int64?
    var cpu: Linux.Resources.CPU?

    init(memory: Int64? = nil, cpu: Linux.Resources.CPU? = nil) { (self.memory, self.cpu) = (memory, cpu) }

    /// Those that follow from the container that the pod is made with. Its memory's is the guest's to keep; the host's holds for
    /// the whole machine with what runs it. Kubernetes limits its pods itself, in a cgroup above.
    ///
    /// - Parameters:
    ///   - above: the least memory in bytes that a cgroup above has; nil: no limit.
    /// - Throws: `SandboxError.invalid` when that can't hold the machine.
    init(_ spec: Spec, _ request: PodRequest, machineMiB: Int, hostMiB: Int, above: Int64?) throws {
        if request.isKubernetes { return }
        let needed = Int64(machineMiB + hostMiB) << 20
        if let above, above < needed {
            throw SandboxError.invalid(
                "the pod's machine of \(machineMiB) MiB and its host processes (vm.host_mib, \(hostMiB) MiB) need "
                    + "\(machineMiB + hostMiB) MiB; a cgroup above linux.cgroupsPath has \(above >> 20) MiB")
        }
        let resources = spec.linux?.resources
        if resources?.memory?.limit ?? 0 > 0 { memory = needed }
        cpu = resources?.cpu
    }

    /// The files that say them, in the order of writing.
    func files(version2: Bool) -> [(name: String, value: String)] {
        var files: [(name: String, value: String)] = []
        if let memory { files.append((version2 ? "memory.max" : "memory.limit_in_bytes", "\(memory)")) }
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
        } else {
            if let period { files.append(("cpu.cfs_period_us", "\(period)")) }
            if let quota { files.append(("cpu.cfs_quota_us", "\(quota > 0 ? quota : -1)")) }
            if let shares = cpu.shares, shares > 0 { files.append(("cpu.shares", "\(shares)")) }
        }
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
    static let controllers = ["cpu", "cpuset", "memory"]

    /// Writes them to a cgroup's directories, one in each hierarchy.
    ///
    /// - Throws: `SystemError` that names file and value, and `SandboxError.unsupported` where no hierarchy has the file.
    func apply(to directories: [String]) throws {
        var found = Set<String>()
        for directory in directories {
            let version2 = access("\(directory)/cgroup.controllers", F_OK) == 0
            for file in files(version2: version2) where access("\(directory)/\(file.name)", F_OK) == 0 {
                try writeText(file.value, to: "\(directory)/\(file.name)")
                found.insert(Self.controller(file.name))
            }
        }
        // A weight is no promise.
        let needed = files(version2: true).filter { $0.name != "cpu.weight" }.map { Self.controller($0.name) }
        if let missing = needed.first(where: { !found.contains($0) }) {
            throw SandboxError.unsupported("linux.resources: the host's cgroups have no controller \(missing)")
        }
    }

    private static func controller(_ file: String) -> String { String(file.prefix { $0 != "." }) }
}
