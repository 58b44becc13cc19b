import OCISpec
import Testing

@testable import Sandbox

/// How large a pod's machine is.
@Suite struct SizingTests {
    private func spec(_ annotations: [String: String] = [:], memory: Int64? = nil) -> Spec {
        var spec = Spec.standard()
        spec.annotations = annotations
        if let memory {
            spec.linux?.resources = .init()
            spec.linux?.resources?.memory = .init()
            spec.linux?.resources?.memory?.limit = memory
        }
        return spec
    }

    private func size(_ spec: Spec, group: Int64? = nil, quota: Int64 = 0) throws -> Sizing {
        var host = HostLimits()
        host.memory = group
        (host.cpuQuota, host.cpuPeriod) = (quota, 100_000)
        return try Sizing(PodRequest(spec), spec, host: host, Configuration())
    }

    private static let sandbox = "io.kubernetes.cri.container-type"

    @Test func nothingSaidMeansTheConfiguration() throws {
        let size = try size(spec())
        #expect(size.memoryMiB == 512 && size.vcpus == 1)
    }

    @Test func thePodsLimitsCountWithTheGuestsOwnNeed() throws {
        let size = try size(
            spec([
                Self.sandbox: "sandbox", "io.kubernetes.cri.sandbox-memory": "\(300 << 20)",
                "io.kubernetes.cri.sandbox-cpu-quota": "150000", "io.kubernetes.cri.sandbox-cpu-period": "100000",
            ]), group: 1 << 30)
        #expect(size.memoryMiB == 364)
        #expect(size.vcpus == 2 || size.vcpus == 1, "two, where the host has them")
    }

    @Test func theMachineFitsThePodsGroup() throws {
        let size = try size(spec([Self.sandbox: "sandbox"]), group: 256 << 20)
        #expect(size.memoryMiB == 216)
    }

    @Test func theGroupOfAnOrdinaryContainerIsNoPods() throws {
        #expect(try size(spec(), group: 256 << 20).memoryMiB == 512)
    }

    @Test func aGroupThatIsTooSmallIsRefusedWithTheNumbers() throws {
        let error = #expect(throws: SandboxError.self) {
            try size(spec([Self.sandbox: "sandbox"]), group: 64 << 20)
        }
        #expect(error?.description.contains("24 MiB") == true, "\(String(describing: error))")
        #expect(error?.description.contains("64 MiB") == true)
    }

    @Test func aContainersLimitMakesRoomForIt() throws {
        #expect(try size(spec(memory: 1 << 30)).memoryMiB == 1088)
        #expect(try size(spec(memory: 64 << 20)).memoryMiB == 512)
        #expect(try size(spec(memory: -1)).memoryMiB == 512)
    }

    /// What nobody checks before it comes here must not overflow.
    @Test(arguments: [
        "9223372036854775807", "-9223372036854775808", "9223372036854775808", "", "-1", "0", "2Gi", "1e9",
    ])
    func anEnginesNumberIsTakenOrIsNone(_ number: String) throws {
        let annotations = ["memory", "cpu-quota", "cpu-period"].map { ("io.kubernetes.cri.sandbox-\($0)", number) }
        var all = Dictionary(uniqueKeysWithValues: annotations)
        all[Self.sandbox] = "sandbox"
        #expect(try size(spec(all)).memoryMiB == 512)
        var crio = ["io.kubernetes.cri-o.ContainerType": "sandbox"]
        for name in ["PodLinuxResources", "PodLinuxOverhead"] {
            crio["io.kubernetes.cri-o.\(name)"] =
                #"{"memory_limit_in_bytes": \#(number), "cpu_quota": \#(number), "cpu_period": \#(number)}"#
        }
        #expect(try size(spec(crio)).memoryMiB == (number == "1e9" ? 1972 : 512))
    }

    @Test func anOwnLimitOfAnySizeIsTakenOrRefused() throws {
        for limit: Int64 in [.max, .min, 0, -1, 1, 1 << 60] { #expect(try size(spec(memory: limit)).memoryMiB == 512) }
        let error = #expect(throws: SandboxError.self) { try size(spec(memory: 1 << 59)) }
        #expect(error?.description.contains("549755813952 MiB") == true, "\(String(describing: error))")
        var limited = spec()
        limited.linux?.resources = .init()
        limited.linux?.resources?.cpu = .init()
        limited.linux?.resources?.cpu?.quota = .max
        limited.linux?.resources?.cpu?.period = .max
        #expect(try size(limited).vcpus >= 1)
    }

    @Test func whatCRIOSaysCounts() throws {
        let size = try size(
            spec([
                "io.kubernetes.cri-o.ContainerType": "sandbox",
                "io.kubernetes.cri-o.PodLinuxResources": #"{"memory_limit_in_bytes": 209715200}"#,
                "io.kubernetes.cri-o.PodLinuxOverhead": #"{"memory_limit_in_bytes": 104857600}"#,
            ]))
        #expect(size.memoryMiB == 364)
    }

    /// Whatever is no network namespace is named with its path.
    @Test(arguments: [
        ("/proc/self/ns/ipc", "not a network namespace"), ("/etc/passwd", "not a network namespace"),
        ("/", "not a network namespace"), ("/no/such", "No such file or directory"),
    ])
    func aPathThatIsNoNetworkNamespaceIsRefused(path: String, reason: String) {
        #expect {
            try SandboxPlan.Network.existing(path: path).check()
        } throws: { error in
            "\(error)".contains(path) && "\(error)".contains(reason)
        }
    }

    /// The kernel takes 64 bytes; ids may be longer.
    @Test func aHostNameMadeFromAnIDIsShortened() {
        let short = String(repeating: "a", count: 64)
        #expect(SandboxPlan.hostname(fromID: short) == short)
        let long = String(repeating: "a", count: 60) + "--.-bcd"
        #expect(SandboxPlan.hostname(fromID: long) == String(repeating: "a", count: 60))
    }
}
