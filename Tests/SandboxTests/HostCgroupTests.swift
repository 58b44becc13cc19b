import Glibc
import Hypervisor
import LinuxSystem
import OCISpec
import Testing

@testable import Sandbox

/// The cgroups of the host: which one a bundle names, and with which limits.
@Suite struct HostCgroupTests {
    @Test(arguments: [
        ("/a/b", "/a/b"), ("a/b", "/a/b"), ("/docker:x:y", "/docker:x:y"), ("a:b", "/a:b"), ("a:b:c:d", "/a:b:c:d"),
        ("system.slice:docker:1", "/system.slice/docker-1.scope"), (":docker:1", "/system.slice/docker-1.scope"),
        ("user-1000.slice:libpod:1", "/user.slice/user-1000.slice/libpod-1.scope"), ("-.slice:a:1", "/a-1.scope"),
        ("a-b-c.slice::1", "/a.slice/a-b.slice/a-b-c.slice/1.scope"),
        ("machine.slice:libpod:pod.slice", "/machine.slice/pod.slice"),
    ])
    func aBundleNamesOneInEitherForm(_ text: String, _ path: String) throws {
        let cgroup = try #require(try HostCgroupPath(text))
        #expect(cgroup.path == path)
        #expect((cgroup.scope != nil) == (path.hasSuffix(".scope") || path.hasSuffix(".slice")))
    }

    @Test(arguments: ["/a/../b", "a.service:b:c", "a--b.slice:b:c", "-a.slice:b:c", "a.slice:b:", "a.slice:b/../c:d"])
    func anImpossibleOneIsRefusedByName(_ text: String) throws {
        let error = #expect(throws: SandboxError.self) { try HostCgroupPath(text) }
        #expect(error.map { "\($0)" }?.contains("linux.cgroupsPath: \(text): ") == true)
        #expect(try HostCgroupPath("") == nil)
    }

    private func spec(_ change: (inout Linux.Resources) -> Void) -> Spec {
        var (spec, resources) = (Spec.standard(), Linux.Resources())
        change(&resources)
        spec.linux?.resources = resources
        return spec
    }

    private func limits(_ spec: Spec, above: Int64? = nil) throws -> HostCgroupLimits {
        try HostCgroupLimits(spec, PodRequest(spec), machineMiB: 256, hostMiB: 40, above: above)
    }

    @Test func memoryIsThatOfTheMachineAndItsProcesses() throws {
        #expect(try limits(spec { _ in }) == HostCgroupLimits())
        let limited = spec {
            $0.memory = .init()
            $0.memory?.limit = 64 << 20
        }
        #expect(try limits(limited).files(version2: true).map(\.name) == ["memory.max"])
        #expect(try limits(limited, above: 296 << 20).memory == 296 << 20)
        let error = #expect(throws: SandboxError.self) { try limits(limited, above: 200 << 20) }
        #expect(error.map { "\($0)" }?.contains("need 296 MiB; a cgroup above linux.cgroupsPath has 200 MiB") == true)
        var pods = limited
        pods.annotations["io.kubernetes.cri.container-type"] = "sandbox"
        #expect(try limits(pods, above: 200 << 20) == HostCgroupLimits())
    }

    /// Where no engine and no cgroup above limits a pod, its guest can't use up the host.
    @Test func aPodWithoutLimitsHasABound() throws {
        var machine = VMConfiguration(
            name: "p", vcpus: 1, memoryMiB: 256, kernel: "/k", initramfs: nil, kernelArguments: [])
        let kvm = HostCgroupLimits(bounding: machine, .builtIn(reason: ""), hostMiB: 40)
        #expect(kvm.memory == Int64(256 + 128 + 128) << 20 && kvm.pids == 8192)
        let tcg = DriverChoice.qemu(accelerator: .tcg, executable: "/q", reason: "")
        #expect(HostCgroupLimits(bounding: machine, tcg, hostMiB: 130).memory == Int64(256 + 130 + 128 + 1024) << 20)
        machine.memoryMiB = 8192
        #expect(
            HostCgroupLimits(bounding: machine, .builtIn(reason: ""), hostMiB: 200).memory == Int64(8192 + 200 + 1024)
                << 20)
        func limits(_ spec: Spec, above: Int64? = nil) throws -> HostCgroupLimits {
            try HostCgroupLimits(
                spec, PodRequest(spec), machineMiB: 256, hostMiB: 40, bound: kvm, above: above)
        }
        var plain = spec { _ in }
        #expect(try limits(plain).files(version2: true).map(\.name) == ["memory.max", "pids.max"])
        #expect(try limits(plain, above: 1 << 40).memory == nil)
        plain.annotations["io.kubernetes.cri.container-type"] = "sandbox"
        #expect(try limits(plain).memory == kvm.memory, "a pod of the class BestEffort")
        #expect(try limits(plain, above: 1 << 30).files(version2: false).map(\.name) == ["pids.max"])
        let limited = spec {
            $0.memory = .init()
            $0.memory?.limit = 64 << 20
        }
        #expect(try limits(limited).memory == 296 << 20)
    }

    /// No engine has asked for a bound, so a host that can't keep it refuses nothing.
    @Test func aBoundThatNothingKeepsIsNoError() throws {
        var bound = HostCgroupLimits(memory: 4096)
        (bound.pids, bound.isBound) = (8, true)
        try bound.apply(to: ["/tmp"])
    }

    @Test func aPodWhoseBundleNamesNoneHasOneOfItsOwn() throws {
        #expect(try HostCgroupPath.own(id: "x").path == "/martlet/x")
        #expect(try HostCgroupPath.own(id: "x").isOwn)
        #expect(try HostCgroupPath("/a/b")?.isOwn == false)
    }

    @Test func limitsAreWrittenAsEachVersionHasThem() {
        var cpu = Linux.Resources.CPU()
        (cpu.quota, cpu.period, cpu.shares, cpu.cpus, cpu.mems) = (50_000, 100_000, 1024, "0-1", "0")
        let limits = HostCgroupLimits(memory: 1 << 28, cpu: cpu)
        func text(_ limits: HostCgroupLimits, _ version2: Bool) -> [String] {
            limits.files(version2: version2).map { "\($0.name)=\($0.value)" }
        }
        #expect(
            text(limits, true) == [
                "memory.max=268435456", "cpu.max=50000 100000", "cpu.weight=39", "cpuset.cpus=0-1", "cpuset.mems=0",
            ])
        #expect(
            text(limits, false) == [
                "memory.limit_in_bytes=268435456", "cpu.cfs_period_us=100000", "cpu.cfs_quota_us=50000",
                "cpu.shares=1024", "cpuset.cpus=0-1", "cpuset.mems=0",
            ])
        (cpu.burst, cpu.idle, cpu.cpus, cpu.mems) = (20_000, 1, "", "")
        let all = text(HostCgroupLimits(cpu: cpu), true)
        #expect(all == ["cpu.max=50000 100000", "cpu.weight=39", "cpu.max.burst=20000", "cpu.idle=1"])
        #expect(text(HostCgroupLimits(cpu: cpu), false).suffix(2) == ["cpu.cfs_burst_us=20000", "cpu.idle=1"])
        (cpu.quota, cpu.shares, cpu.burst, cpu.idle) = (-1, 0, nil, nil)
        #expect(text(HostCgroupLimits(cpu: cpu), true) == ["cpu.max=max 100000"])
        #expect(
            text(HostCgroupLimits(cpu: cpu), false) == ["cpu.cfs_period_us=100000", "cpu.cfs_quota_us=-1"])
    }

    /// Its limits would be changed, and it would be removed with the pod.
    @Test(.enabled(if: geteuid() == 0, "needs root: cgroups")) func oneThatSomebodyUsesIsRefused() throws {
        let path = try HostCgroupPath(path: "/martlet-test-\(getpid())")
        try HostCgroup.requireUnused(path, but: [])
        let child = try ChildProcess(
            "sleep",
            .init(executable: "/bin/sleep", arguments: ["100"], descriptors: [-1, -1, -1], diesWithParent: true))
        defer { child.signal(SIGKILL) }
        let directories = try HostCgroup.make(path, pid: child.pid)
        try #require(!directories.isEmpty)
        defer {
            child.signal(SIGKILL)
            HostCgroup.remove(directories)
        }
        let error = #expect(throws: SandboxError.self) { try HostCgroup.requireUnused(path, but: []) }
        #expect(error.map { "\($0)" }?.contains("container's cgroup is not empty: 1 process(es) found") == true)
        try HostCgroup.requireUnused(path, but: [child.pid])
        #expect(directories.allSatisfy { access($0, F_OK) == 0 }, "it stays as it is")
    }

    @Test func systemdIsToldTheLimits() throws {
        var cpu = Linux.Resources.CPU()
        (cpu.quota, cpu.period) = (50_000, 200_000)
        let words = SystemdScope.arguments(
            .init(name: "a-b.scope", slice: "a.slice"), pid: 17, HostCgroupLimits(memory: 4096, cpu: cpu))
        let text = words.joined(separator: " ")
        #expect(text.contains("StartTransientUnit ssa(sv)a(sa(sv)) a-b.scope replace 7 Description s Martlet"))
        #expect(text.contains(" Slice s a.slice Delegate b true "))
        #expect(text.hasSuffix(" PIDs au 1 17 MemoryMax t 4096 CPUQuotaPerSecUSec t 250000 0"))
    }

    /// Directories stand for hierarchies of which one has no controller.
    @Test func aLimitThatNothingKeepsIsRefused() throws {
        var template = Array("/tmp/martlet-cgroup-XXXXXX".utf8CString)
        let directory = String(cString: try #require(mkdtemp(&template)))
        defer { for name in ["cgroup.controllers", "memory.max", ""] { remove("\(directory)/\(name)") } }
        for name in ["cgroup.controllers", "memory.max"] {
            _ = try OwnedDescriptor.open("\(directory)/\(name)", O_WRONLY | O_CREAT, mode: 0o644)
        }
        var cpu = Linux.Resources.CPU()
        cpu.shares = 2
        try HostCgroupLimits(memory: 4096, cpu: cpu).apply(to: [directory])
        #expect(try readText("\(directory)/memory.max") == "4096")
        cpu.quota = 1000
        let error = #expect(throws: SandboxError.self) { try HostCgroupLimits(cpu: cpu).apply(to: [directory]) }
        #expect(error.map { "\($0)" }?.contains("no controller cpu") == true)
    }
}
