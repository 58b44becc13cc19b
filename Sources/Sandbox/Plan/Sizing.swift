import Glibc
import LinuxSystem
import OCISpec

/// How large a pod's machine is, and why: a value.
public struct Sizing: Sendable, Equatable, Codable {
    public var vcpus: Int
    public var memoryMiB: Int
    /// For messages: what the memory follows from.
    public var reason: String
}

/// What an engine says of a pod as a whole: Kubernetes' CRI, by containerd or CRI-O.
struct PodRequest: Sendable, Equatable {
    /// Whether the container is of a Kubernetes pod.
    var isKubernetes = false
    /// Whether the container stands for a pod whose containers come later.
    var isSandbox = false
    /// Bytes; 0: nothing said.
    var memory: Int64 = 0
    /// Of the pod's limits: microseconds of each period. 0: nothing said.
    var cpuQuota: Int64 = 0
    var cpuPeriod: Int64 = 0

    init(_ spec: Spec) {
        let notes = spec.annotations
        let types = [notes["io.kubernetes.cri.container-type"], notes["io.kubernetes.cri-o.ContainerType"]]
        isKubernetes = types.contains { $0 != nil }
        isSandbox = types.contains("sandbox")
        func number(_ name: String) -> Int64 { Int64(notes["io.kubernetes.cri.sandbox-\(name)"] ?? "") ?? 0 }
        (memory, cpuQuota, cpuPeriod) = (number("memory"), number("cpu-quota"), number("cpu-period"))
        for name in ["PodLinuxResources", "PodLinuxOverhead"] {
            guard let text = notes["io.kubernetes.cri-o.\(name)"],
                let values = try? JSON.decode(CRIOResources.self, from: Array(text.utf8), file: name)
            else { continue }
            memory = Self.sum(memory, values.memoryLimit)
            cpuQuota = Self.sum(cpuQuota, values.cpuQuota)
            cpuPeriod = max(cpuPeriod, values.cpuPeriod ?? 0)
        }
    }

    /// At most the largest number: what an engine writes is not checked by anybody.
    private static func sum(_ one: Int64, _ other: Int64?) -> Int64 {
        let (sum, overflow) = one.addingReportingOverflow(other ?? 0)
        return overflow ? (one < 0 ? .min : .max) : sum
    }

    /// CRI's LinuxContainerResources as CRI-O writes them.
    private struct CRIOResources: Decodable {
        var memoryLimit: Int64?
        var cpuQuota: Int64?
        var cpuPeriod: Int64?

        enum CodingKeys: String, CodingKey {
            case memoryLimit = "memory_limit_in_bytes"
            case cpuQuota = "cpu_quota"
            case cpuPeriod = "cpu_period"
        }
    }
}

extension Sizing {
    /// A limit of this many bytes and more is none: cgroup v1 writes the largest page-aligned number.
    static let unlimited: Int64 = 1 << 60

    /// How many MiB hold so many bytes, which an engine may have given as any number.
    static func mebibytes(for bytes: Int64) -> Int { Int(bytes >> 20) + (bytes & 0xf_ffff == 0 ? 0 : 1) }

    /// Of a new pod with one container.
    init(of spec: Spec, _ configuration: Configuration) throws {
        // What the bundle names tells of the engine's limits, wherever the pod's processes are.
        let named = try HostCgroupPath(spec.linux?.cgroupsPath ?? "")
        try self.init(PodRequest(spec), spec, host: HostLimits(above: named?.path ?? ""), configuration)
    }

    /// From what is known, the most telling first: what the engine says of the pod; the limit of the pod's control group on
    /// the host, in which the machine and all that runs it must fit; the container's own limits; the configuration.
    ///
    /// - Parameter host: the limits of the pod's group on the host (`HostLimits`).
    init(_ request: PodRequest, _ spec: Spec?, host: HostLimits, _ configuration: Configuration) throws {
        let mebibyte: Int64 = 1 << 20
        let own = spec?.linux?.resources
        let limit = own?.memory?.limit ?? 0
        if request.memory > 0, request.memory < Self.unlimited {
            memoryMiB = Self.mebibytes(for: request.memory) + configuration.vm.overheadMiB
            reason = "the pod's memory limit of \(request.memory / mebibyte) MiB and vm.overhead_mib"
        } else if request.isSandbox, let group = host.memory {
            memoryMiB = Int(group / mebibyte) - configuration.vm.hostMiB
            reason = "the pod's control group, \(group / mebibyte) MiB, less vm.host_mib"
        } else if limit > 0, limit < Self.unlimited {
            let wanted = Self.mebibytes(for: limit) + configuration.vm.overheadMiB
            memoryMiB = max(wanted, configuration.vm.memoryMiB)
            reason =
                wanted > configuration.vm.memoryMiB
                ? "the container's memory limit and vm.overhead_mib" : "vm.memory_mib"
        } else {
            memoryMiB = configuration.vm.memoryMiB
            reason = "vm.memory_mib"
        }
        guard memoryMiB >= Configuration.minimumMemoryMiB else {
            throw SandboxError.invalid(
                "the pod's machine would have \(memoryMiB) MiB (\(reason)); it needs \(Configuration.minimumMemoryMiB) at "
                    + "least: raise the pod's limit, or the overhead of its RuntimeClass")
        }
        let most = configuration.vm.maximumMemoryMiB ?? Configuration.maximumMemoryMiB
        guard memoryMiB <= most else {
            throw SandboxError.invalid(
                "the pod's machine would have \(memoryMiB) MiB (\(reason)); it can have \(most) at most")
        }
        let quota = request.cpuQuota > 0 ? request.cpuQuota : request.isSandbox ? host.cpuQuota : own?.cpu?.quota ?? 0
        let period =
            request.cpuQuota > 0
            ? request.cpuPeriod : request.isSandbox ? host.cpuPeriod : Int64(clamping: own?.cpu?.period ?? 0)
        // CPUs that a container names must be there.
        let cpus = max(Self.cpus(quota: quota, period: period), Self.cpus(upToLastOf: own?.cpu?.cpus ?? ""))
        vcpus =
            cpus > 0 ? min(max(cpus, configuration.vm.vcpus), configuration.mostVCPUs) : configuration.vm.vcpus
    }

    /// How many CPUs there are up to the last one of a list such as `0-3,7`; 0 for an empty list, and for what is none, which the
    /// guest refuses.
    static func cpus(upToLastOf list: String) -> Int {
        let numbers = list.split { ",-".contains($0) }.map { Int($0) }
        return numbers.contains(nil) ? 0 : numbers.compactMap(\.self).map { min($0, 1 << 20) + 1 }.max() ?? 0
    }

    /// CPUs that a limit of so many microseconds of each period allows, rounded up; 0: no limit. The default period is cgroup's
    /// (cgroup-v2.rst, cpu.max).
    static func cpus(quota: Int64, period: Int64) -> Int {
        quota > 0 ? Int((quota - 1) / max(period == 0 ? 100_000 : period, 1) + 1) : 0
    }
}

/// The limits of a control group of the host.
struct HostLimits: Sendable, Equatable {
    /// Bytes.
    var memory: Int64?
    /// Microseconds; 0: none.
    var cpuQuota: Int64 = 0
    var cpuPeriod: Int64 = 0

    init() {}

    /// The least memory, in bytes, of the groups that `path`, a path below each hierarchy's root, lies in; nil: none has a limit.
    static func leastMemory(above path: String) -> Int64? {
        var (path, least) = (path, Int64?.none)
        while path.dropFirst().contains("/"), let slash = path.lastIndex(of: "/") {
            if let memory = HostLimits(above: path).memory { least = min(least ?? memory, memory) }
            path = String(path[..<slash])
        }
        return least
    }

    /// Of the group that `path`, a path below each hierarchy's root, lies in: Kubernetes makes that for the pod.
    init(above path: String) {
        guard path.hasPrefix("/"), let slash = path.dropFirst().lastIndex(of: "/") else { return }
        let pod = path[..<slash]
        func read(_ candidates: [String]) -> String? {
            candidates.lazy.compactMap { try? readText("/sys/fs/cgroup/\($0)") }.first
        }
        let text = read(["memory\(pod)/memory.limit_in_bytes", "\(pod.dropFirst())/memory.max"]) ?? ""
        if let number = Int64(text.split(separator: "\n").first ?? ""), number < 1 << 60 { memory = number }
        if let words = read(["\(pod.dropFirst())/cpu.max"])?.split(whereSeparator: \.isWhitespace), words.count == 2 {
            (cpuQuota, cpuPeriod) = (Int64(words[0]) ?? 0, Int64(words[1]) ?? 0)
        } else {
            func number(_ file: String) -> Int64 {
                let text = read(["cpu\(pod)/\(file)", "cpu,cpuacct\(pod)/\(file)"]) ?? ""
                return Int64(text.split(separator: "\n").first ?? "") ?? 0
            }
            (cpuQuota, cpuPeriod) = (max(0, number("cpu.cfs_quota_us")), number("cpu.cfs_period_us"))
        }
    }
}
