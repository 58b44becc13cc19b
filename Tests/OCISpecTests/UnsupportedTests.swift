import Testing

@testable import OCISpec

@Suite struct UnsupportedTests {
    private func found(_ edit: (inout Spec) -> Void) -> [Unsupported] {
        var spec = Spec.standard()
        spec.linux?.resources = nil
        edit(&spec)
        return spec.unsupported()
    }

    private func expect(
        _ field: String, _ verdict: Unsupported.Verdict, _ edit: (inout Spec) -> Void,
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        let found = found(edit)
        #expect(found.map(\.field) == [field], sourceLocation: sourceLocation)
        #expect(found.map(\.verdict) == [verdict], sourceLocation: sourceLocation)
    }

    @Test func theStandardSpecOnlyWarnsOfItsDeviceRule() {
        #expect(Spec.standard().unsupported().map(\.field) == ["linux.resources.devices"])
        #expect(Spec.standard().unsupported().allSatisfy { $0.verdict == .warn })
        #expect(found { _ in } == [])
    }

    @Test func whatEnginesAlwaysWriteIsWarnedOf() {
        expect("linux.seccomp", .warn) { $0.linux?.seccomp = .init(defaultAction: "SCMP_ACT_ERRNO") }
        expect("linux.cgroupsPath", .warn) { $0.linux?.cgroupsPath = "/x" }
        expect("linux.resources.pids", .warn) {
            $0.linux?.resources = .init()
            $0.linux?.resources?.pids = .init(limit: 2048)
        }
        expect("linux.resources.cpu.shares", .warn) {
            var cpu = Linux.Resources.CPU()
            cpu.shares = 1024
            $0.linux?.resources = .init()
            $0.linux?.resources?.cpu = cpu
        }
        expect("process.apparmorProfile", .warn) { $0.process?.apparmorProfile = "containers-default" }
        expect("process.selinuxLabel", .warn) { $0.process?.selinuxLabel = "system_u:x" }
        expect("process.oomScoreAdj", .warn) { $0.process?.oomScoreAdj = 100 }
        expect("linux.namespaces", .warn) { $0.linux?.namespaces.removeAll { $0.kind == .network } }
        expect("mounts[0].options", .warn) { $0.mounts[0].options = ["rslave"] }
    }

    @Test func whatChangesTheContainerIsRefused() {
        expect("domainname", .refuse) { $0.domainname = "x" }
        expect("windows", .refuse) { $0.windows = Opaque() }
        expect("hooks.poststop", .refuse) {
            $0.hooks = Hooks()
            $0.hooks?.poststop = [Hook(path: "/bin/true")]
        }
        expect("process.scheduler", .refuse) { $0.process?.scheduler = Scheduler(policy: "SCHED_FIFO") }
        expect("process.ioPriority", .refuse) {
            $0.process?.ioPriority = IOPriority(class: "IOPRIO_CLASS_RT", priority: 1)
        }
        expect("linux.namespaces[6]", .refuse) { $0.linux?.namespaces.append(.init(.user)) }
        expect("linux.namespaces[6]", .refuse) { $0.linux?.namespaces.append(.init(.time)) }
        expect("linux.namespaces[2].path", .refuse) { $0.linux?.namespaces[2].path = "/run/netns/x" }
        expect("linux.namespaces", .refuse) { $0.linux?.namespaces.removeAll { $0.kind == .mount } }
        expect("linux.uidMappings", .refuse) { $0.linux?.uidMappings = [.init(containerID: 0, hostID: 1, size: 1)] }
        expect("linux.devices[0]", .refuse) {
            $0.linux?.devices = [.init(path: "/dev/fuse", type: "c", major: 10, minor: 229)]
        }
        expect("linux.rootfsPropagation", .refuse) { $0.linux?.rootfsPropagation = "rshared" }
        expect("linux.intelRdt", .refuse) { $0.linux?.intelRdt = .init() }
        expect("linux.personality", .refuse) { $0.linux?.personality = .init(domain: "LINUX32") }
        expect("linux.timeOffsets", .refuse) { $0.linux?.timeOffsets = ["boottime": .init(secs: 1)] }
        expect("mounts[0].options", .refuse) { $0.mounts[0].options = ["rshared"] }
        expect("linux.resources.memory.limit", .refuse) {
            var memory = Linux.Resources.Memory()
            memory.limit = 1 << 20
            $0.linux?.resources = .init()
            $0.linux?.resources?.memory = memory
        }
        expect("linux.resources.unified", .refuse) {
            $0.linux?.resources = .init()
            $0.linux?.resources?.unified = ["io.max": "x"]
        }
    }

    @Test func limitsThatLimitNothingAreNoFinding() {
        let spec = found {
            var memory = Linux.Resources.Memory()
            (memory.limit, memory.swap) = (0, -1)
            var cpu = Linux.Resources.CPU()
            (cpu.shares, cpu.quota, cpu.period) = (0, -1, 100_000)
            $0.linux?.resources = .init()
            $0.linux?.resources?.memory = memory
            $0.linux?.resources?.cpu = cpu
            $0.linux?.resources?.pids = .init(limit: -1)
            $0.linux?.personality = .init(domain: "LINUX")
            $0.linux?.devices = [.init(path: "/dev/null", type: "c", major: 1, minor: 3)]
        }
        #expect(spec == [])
    }
}
