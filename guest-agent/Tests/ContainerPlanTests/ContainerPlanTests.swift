import GuestSystem
import OCISpec
import Testing

@testable import ContainerPlan

@Suite struct ContainerPlanTests {
    func spec(_ change: (inout Spec) -> Void = { _ in }) -> Spec {
        var spec = Spec(
            process: Process(args: ["sh"]), root: Root(path: "/run/martlet/x/rootfs"),
            linux: Linux(namespaces: [.init(.mount), .init(.pid), .init(.uts)]))
        change(&spec)
        return spec
    }

    func refusal(_ change: (inout Spec) -> Void) -> AgentFailure? {
        #expect(throws: AgentFailure.self) { try ContainerPlan(spec(change)) }
    }

    @Test func namespacesBecomeFlags() throws {
        #expect(try ContainerPlan(spec()).namespaces.own == 0x0002_0000 | 0x2000_0000 | 0x0400_0000)
        let plan = try ContainerPlan(
            spec {
                $0.linux?.namespaces = [
                    .init(.mount), .init(.user), .init(.time), .init(.cgroup),
                    .init(.pid, path: "/run/martlet/sandbox/ns/pid"), .init(.uts, path: "/run/martlet/sandbox/ns/uts"),
                ]
                $0.linux?.uidMappings = [
                    .init(containerID: 0, hostID: 1000, size: 10), .init(containerID: 10, hostID: 1, size: 1),
                ]
                $0.linux?.gidMappings = [.init(containerID: 0, hostID: 2000, size: 10)]
                $0.linux?.timeOffsets = ["boottime": .init(secs: 7, nanosecs: 8), "monotonic": .init(secs: -1)]
            }
        ).namespaces
        #expect(plan.own == 0x0002_0000 | 0x1000_0000 | 0x0200_0080)
        #expect(plan.cloneFlags == 0x0002_0000 | 0x1000_0000)
        #expect(plan.entered == plan.own | 0x2000_0000)
        #expect(plan.userMap == "0 1000 10\n10 1 1\n")
        #expect(plan.groupMap == "0 2000 10\n")
        #expect(plan.clockOffsets == "boottime 7 8\nmonotonic -1 0\n")
    }

    @Test(arguments: [
        Linux.Namespace(.ipc, path: "/proc/1/ns/ipc"), .init(.network, path: "/proc/1/ns/net"),
        .init(.cgroup, path: "/run/martlet/sandbox/ns/cgroup"),
    ])
    func namespacesThatAreNotMadeAreRefusedByName(namespace: Linux.Namespace) {
        let failure = refusal { $0.linux?.namespaces.append(namespace) }
        #expect(failure?.kind == .unimplemented)
        #expect(failure?.message.contains(namespace.type) == true)
    }

    @Test func namespacesOfOtherContainersAreJoined() throws {
        let plan = try ContainerPlan(
            spec {
                $0.hostname = "box"
                $0.linux?.namespaces = [
                    .init(.mount), .init(.ipc, path: "/run/martlet/containers/a/ns/ipc"),
                    .init(.uts, path: "/run/martlet/containers/b/ns/uts"),
                    .init(.pid, path: "/run/martlet/containers/a/ns/pid"),
                ]
            }
        ).namespaces
        #expect(plan.own == 0x0002_0000)
        #expect(
            plan.joined == [.init(container: "a", flags: 0x2800_0000), .init(container: "b", flags: 0x0400_0000)])
        #expect(plan.processesOf == "a")
        #expect(plan.entered == 0x2C02_0000)
        for path in [
            "/run/martlet/containers/a/ns/uts", "/run/martlet/containers/a/b/ns/pid", "/run/martlet/containers/ns/pid",
        ] {
            let failure = refusal { $0.linux?.namespaces[1] = .init(.pid, path: path) }
            #expect(failure?.message.contains(path) == true)
        }
    }

    @Test func aMountNamespaceIsNeeded() {
        #expect(refusal { $0.linux?.namespaces = [.init(.pid)] }?.message.contains("mount namespace") == true)
    }

    @Test func aHostNameNeedsItsNamespace() throws {
        let failure = refusal {
            $0.hostname = "box"
            $0.linux?.namespaces = [.init(.mount)]
        }
        #expect(failure?.kind == .invalidArgument)
        // One that it shares will do.
        let plan = try ContainerPlan(
            spec {
                $0.hostname = "box"
                $0.linux?.namespaces = [.init(.mount), .init(.uts, path: "/run/martlet/sandbox/ns/uts")]
            })
        #expect(plan.hostname == "box")
    }

    @Test func cgroupMountsAreOfTheUnifiedHierarchy() throws {
        let plan = try ContainerPlan(
            spec {
                $0.mounts = [
                    Mount(destination: "/sys/fs/cgroup", type: "cgroup", source: "cgroup", options: ["ro", "relatime"])
                ]
            })
        #expect(plan.mounts[0].type == "cgroup2")
        #expect(plan.mounts[0].options.mountFlags == 1)
    }

    @Test func kernelParametersBecomePaths() {
        #expect(ContainerPlan.parameterPath("net.ipv4.ip_forward") == "net/ipv4/ip_forward")
        #expect(ContainerPlan.parameterPath("net/ipv4/conf/eth0.100/forwarding") == "net/ipv4/conf/eth0.100/forwarding")
        #expect(ContainerPlan.parameterPath("net.ipv4.conf.eth0/100.forwarding") == "net/ipv4/conf/eth0.100/forwarding")
    }

    @Test func aProcessBecomesNumbers() throws {
        let plan = try ContainerPlan(
            spec {
                $0.process?.capabilities = Capabilities(
                    bounding: ["CAP_CHOWN", "CAP_CHECKPOINT_RESTORE"], ambient: ["CAP_KILL"])
                $0.process?.rlimits = [Rlimit(type: "RLIMIT_NOFILE", hard: .max, soft: 1024)]
            }
        ).process
        #expect(plan.capabilities.bounding == 1 | 1 << 40)
        #expect(plan.capabilities.ambient == 1 << 5)
        #expect(plan.capabilities.effective == 0)
        #expect(plan.limits == [.init(resource: 7, soft: 1024, hard: .max)])
        #expect(plan.umask == 0o022)
    }

    @Test func whatCanNotBeIsNamed() {
        #expect(refusal { $0.process?.args = [] }?.message.contains("process.args") == true)
        #expect(refusal { $0.process?.cwd = "x" }?.message.contains("process.cwd") == true)
    }

    @Test func aPlanSurvivesTheWayToItsStage() throws {
        let plan = try ContainerPlan(
            spec {
                $0.mounts = [Mount(destination: "/a", source: "/b", options: ["rbind", "rro"])]
                $0.process?.rlimits = [Rlimit(type: "RLIMIT_CORE", hard: .max, soft: .max)]
                $0.process?.args = ["\u{1}\"\\", "é"]
            })
        #expect(try JSON.decode(ContainerPlan.self, from: try JSON.encode(plan), file: "plan") == plan)
    }
}
