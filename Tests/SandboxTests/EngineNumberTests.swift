import FoundationEssentials
import Glibc
import LinuxSystem
import OCISpec
import Testing

@testable import Sandbox

/// Numbers that an engine writes and nobody has checked: each is taken, clamped or refused by name, and none ends the server.
@Suite struct EngineNumberTests {
    static let numbers = [
        "9223372036854775807", "-9223372036854775808", "18446744073709551615", "18446744073709551616",
        "9223372036854775808", "-9223372036854775809", "4294967296", "1152921504606846976", "65536", "-1", "0", "1",
    ]

    /// Each numeric property of `linux.resources`; N is the number.
    static let resources: [(String, String)] = [
        ("memory.limit", #"{"memory": {"limit": N}}"#),
        ("memory.reservation", #"{"memory": {"reservation": N}}"#),
        ("memory.swap", #"{"memory": {"swap": N}}"#),
        ("memory.kernel", #"{"memory": {"kernel": N}}"#),
        ("memory.kernelTCP", #"{"memory": {"kernelTCP": N}}"#),
        ("memory.swappiness", #"{"memory": {"swappiness": N}}"#),
        ("cpu.shares", #"{"cpu": {"shares": N}}"#),
        ("cpu.quota", #"{"cpu": {"quota": N}}"#),
        ("cpu.burst", #"{"cpu": {"burst": N}}"#),
        ("cpu.period", #"{"cpu": {"period": N}}"#),
        ("cpu.realtimeRuntime", #"{"cpu": {"realtimeRuntime": N}}"#),
        ("cpu.realtimePeriod", #"{"cpu": {"realtimePeriod": N}}"#),
        ("cpu.idle", #"{"cpu": {"idle": N}}"#),
        ("cpu.period", #"{"cpu": {"quota": 9223372036854775807, "period": N}}"#),
        ("cpu.quota", #"{"cpu": {"quota": N, "period": 1}}"#),
        ("memory.swap", #"{"memory": {"limit": 1048576, "swap": N}}"#),
        ("pids.limit", #"{"pids": {"limit": N}}"#),
        ("blockIO.weight", #"{"blockIO": {"weight": N}}"#),
        ("blockIO.leafWeight", #"{"blockIO": {"leafWeight": N}}"#),
        ("blockIO.weightDevice[0].major", #"{"blockIO": {"weightDevice": [{"major": N, "minor": 0}]}}"#),
        ("blockIO.weightDevice[0].minor", #"{"blockIO": {"weightDevice": [{"major": 8, "minor": N}]}}"#),
        ("blockIO.weightDevice[0].weight", #"{"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": N}]}}"#),
        (
            "blockIO.weightDevice[0].leafWeight",
            #"{"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "leafWeight": N}]}}"#
        ),
        (
            "blockIO.throttleReadBpsDevice[0].rate",
            #"{"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": N}]}}"#
        ),
        (
            "blockIO.throttleWriteBpsDevice[0].rate",
            #"{"blockIO": {"throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": N}]}}"#
        ),
        (
            "blockIO.throttleReadIOPSDevice[0].rate",
            #"{"blockIO": {"throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": N}]}}"#
        ),
        (
            "blockIO.throttleWriteIOPSDevice[0].rate",
            #"{"blockIO": {"throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": N}]}}"#
        ),
        (
            "blockIO.throttleReadBpsDevice[0].major",
            #"{"blockIO": {"throttleReadBpsDevice": [{"major": N, "minor": 0, "rate": 1}]}}"#
        ),
        (
            "blockIO.throttleReadBpsDevice[0].minor",
            #"{"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": N, "rate": 1}]}}"#
        ),
        ("hugepageLimits[0].limit", #"{"hugepageLimits": [{"pageSize": "2MB", "limit": N}]}"#),
        ("network.classID", #"{"network": {"classID": N}}"#),
        ("network.priorities[0].priority", #"{"network": {"priorities": [{"name": "eth0", "priority": N}]}}"#),
        ("rdma.mlx.hcaHandles", #"{"rdma": {"mlx": {"hcaHandles": N}}}"#),
        ("rdma.mlx.hcaObjects", #"{"rdma": {"mlx": {"hcaObjects": N}}}"#),
        ("devices[0].major", #"{"devices": [{"allow": true, "major": N}]}"#),
        ("devices[0].minor", #"{"devices": [{"allow": true, "minor": N}]}"#),
    ]

    private func withBundle(_ resources: String, _ body: (Bundle) throws -> Void) throws {
        var template = Array("/tmp/martlet-numbers.XXXXXX".utf8CString)
        try #require(mkdtemp(&template) != nil)
        let directory = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        try #require(mkdir("\(directory)/rootfs", 0o755) == 0)
        var spec = Spec.standard()
        spec.root = Root(path: "rootfs", readonly: false)
        spec.linux?.resources = nil
        let text = String(decoding: try JSON.encode(spec), as: UTF8.self)
            .replacing(#""linux":{"#, with: #""linux":{"resources":\#(resources),"#)
        try text.write(toFile: "\(directory)/config.json", atomically: false, encoding: .utf8)
        try body(Bundle(directory: directory))
    }

    /// All that a server does with the limits of a container before it asks the guest for it.
    private func plan(_ bundle: Bundle, _ policy: Unsupported.Verdict) throws {
        var configuration = Configuration()
        configuration.spec.ineffectiveLimits = policy
        let (container, _) = try SandboxPlan.Container.planned(id: "c", bundle: bundle, configuration)
        for limit: Int64 in [0, 1 << 30] {
            var host = HostLimits()
            if limit > 0 { (host.memory, host.cpuQuota, host.cpuPeriod) = (limit, limit, 1) }
            _ = try Sizing(PodRequest(bundle.spec), bundle.spec, host: host, configuration)
        }
        let limits = try HostCgroupLimits(
            bundle.spec, PodRequest(bundle.spec), machineMiB: 512, hostMiB: 40, above: nil)
        for version2 in [false, true] {
            for file in limits.files(version2: version2) {
                let words = file.value.split(separator: " ")
                #expect(words.allSatisfy { $0 == "max" || UInt64($0) != nil || $0 == "-1" }, "\(file)")
            }
        }
        let scope = try #require(try HostCgroupPath("a.slice:b:c")?.scope)
        #expect(!SystemdScope.arguments(scope, pid: 1, limits).contains("0t"))
        var updated = Linux.Resources()
        updated.update(with: try #require(container.spec.linux?.resources))
    }

    @Test(arguments: resources) func aLimitIsTakenOrRefusedByName(_ field: String, _ json: String) throws {
        for number in Self.numbers {
            for policy in [Unsupported.Verdict.refuse, .warn] {
                do {
                    try withBundle(json.replacing("N", with: number)) { try plan($0, policy) }
                } catch let error as SpecError {
                    #expect(error.description.contains("linux.resources.\(field)"), "\(error)")
                    #expect(error.description.contains(number), "\(error)")
                } catch let error as SandboxError {
                    let group = field.prefix { $0 != "." && $0 != "[" }
                    #expect(error.description.contains(group) || error.description.contains("MiB"), "\(error)")
                }
            }
        }
    }

    /// The settings that are numbers, where an annotation of the bundle may change them.
    @Test(arguments: [
        "vm.vcpus", "vm.memory_mib", "vm.overhead_mib", "vm.host_mib", "agent.start_timeout_s",
        "agent.request_timeout_s", "agent.heartbeat_interval_ms", "agent.heartbeat_timeout_ms",
        "volumes.copy_limit_mib",
    ])
    func anAnnotationsNumberIsTakenOrRefusedByName(_ key: String) throws {
        let file = "/tmp/martlet-numbers-\(getpid())-\(key).toml"
        try "engine.annotations = [\"\(key)\"]\n".write(toFile: file, atomically: false, encoding: .utf8)
        defer { unlink(file) }
        for number in Self.numbers {
            do throws(ConfigurationError) {
                _ = try Configuration.load(file: file, annotations: ["io.martlet.\(key)": number])
                #expect(Int(number).map { (0...65536).contains($0) } == true)
            } catch { #expect(error.description.contains(key), "\(error)") }
        }
    }

    @Test(arguments: [
        ("memory", 512), ("cpu-quota", 512), ("cpu-period", 512),
    ])
    func anAnnotationOfKubernetesIsTakenOrIsNone(_ name: String, _ usual: Int) throws {
        for number in Self.numbers {
            var spec = Spec.standard()
            spec.annotations = [
                "io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri.sandbox-\(name)": number,
            ]
            do {
                let size = try Sizing(PodRequest(spec), spec, host: HostLimits(), Configuration())
                #expect(size.memoryMiB == usual || name == "memory" && size.memoryMiB == 4160, "\(number)")
                #expect((1...32).contains(size.vcpus))
            } catch let error as SandboxError { #expect(error.description.contains("MiB"), "\(error)") }
        }
    }

    /// What lies between two numbers of a hook's, in seconds, is waited for in steps.
    @Test func aHookMayTakeAnyTime() throws {
        let hook = Hook(path: "/bin/true", args: ["true"], timeout: .max)
        try HostHooks.execute(hook, name: "hook", state: Data(), bundle: "/")
    }

    /// An engine may have made a tmpfs as large as the kernel takes.
    @Test func anySizeOfATmpfsIsRead() {
        #expect(SandboxPlan.PodVolume.size(["size=18446744073709551615k"]) == nil)
        #expect(SandboxPlan.PodVolume.size(["size=9223372036854775807k"]) == nil)
        #expect(SandboxPlan.PodVolume.size(["size=1024k"]) == 1 << 20)
    }

    @Test func sizesInMiBAreRoundedUp() {
        for (bytes, size) in [(Int64(0), 0), (1, 1), (1 << 20, 1), ((1 << 20) + 1, 2), (.max, 8_796_093_022_208)] {
            #expect(Sizing.mebibytes(for: bytes) == size)
        }
    }
}
