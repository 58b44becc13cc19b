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

    @Test func theStandardSpecIsHonouredWhole() {
        #expect(Spec.standard().unsupported() == [])
        for option in ["ro", "rro", "private", "rprivate", "unbindable", "rbind"] {
            #expect(found { $0.mounts[0].options = [option] } == [])
        }
    }

    @Test func devicesThatEachGuestHasAreItsOwn() {
        let numbers = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (10, 200), (10, 229)]
        for (major, minor) in numbers {
            #expect(
                found {
                    $0.linux?.devices = [.init(path: "/dev/x", type: "c", major: Int64(major), minor: Int64(minor))]
                } == [])
        }
        var policy = Unsupported.Policy()
        policy.hostDevices = .warn
        var spec = Spec.standard()
        spec.linux?.devices = [.init(path: "/dev/sdb", type: "b", major: 8, minor: 16)]
        #expect(spec.unsupported(policy: policy).map(\.verdict) == [.warn])
    }

    /// `--privileged`: engines then list each device that the host has.
    @Test func oneWarningTellsThatAPrivilegedContainerHasTheGuestsDevices() {
        var spec = Spec.standard()
        spec.linux?.devices = [
            .init(path: "/dev/autofs", type: "c", major: 10, minor: 235),
            .init(path: "/dev/n", type: "c", major: 1, minor: 3),
            .init(path: "/dev/sdb", type: "b", major: 8, minor: 16),
        ]
        let rules: (Bool, [(Bool, String, Int64?)]) -> Void = { [spec] all, rules in
            var spec = spec
            spec.linux?.resources?.devices = rules.map { allow, access, major in
                var rule = Linux.Resources.DeviceRule(allow: allow, access: access)
                rule.major = major
                return rule
            }
            #expect(spec.linux?.allowsAllDevices == all, "\(rules)")
            let found = spec.unsupported()
            #expect(found.map(\.verdict) == (all ? [.warn] : [.refuse, .refuse]), "\(found)")
            #expect(found.first?.description.contains("/dev/autofs") == true)
            #expect(!all || found.first?.description.contains("and 1 more") == true)
        }
        rules(true, [(true, "rwm", nil)])
        rules(true, [(false, "rwm", nil), (true, "", -1), (false, "rwm", 5)])
        rules(false, [(true, "rwm", nil), (false, "rwm", nil)])
        rules(false, [(true, "rw", nil)])
        rules(false, [(true, "rwm", 1)])
        spec.linux?.removeHostDevices()
        #expect(spec.linux?.devices.map(\.path) == ["/dev/n"])
    }

    @Test func whatEnginesAlwaysWriteIsWarnedOf() {
        expect("linux.resources.memory.swap", .warn) {
            var memory = Linux.Resources.Memory()
            (memory.limit, memory.swap) = (1 << 20, 2 << 20)
            $0.linux?.resources = .init()
            $0.linux?.resources?.memory = memory
        }
        expect("process.apparmorProfile", .warn) { $0.process?.apparmorProfile = "containers-default" }
        expect("process.selinuxLabel", .warn) { $0.process?.selinuxLabel = "system_u:x" }
        expect("linux.rootfsPropagation", .warn) { $0.linux?.rootfsPropagation = "rshared" }
        expect("linux.seccomp.listenerPath", .warn) {
            $0.linux?.seccomp = .init(defaultAction: "SCMP_ACT_ALLOW")
            $0.linux?.seccomp?.listenerPath = "/run/listener"
        }
        expect("process.capabilities.bounding[0]", .warn) { $0.process?.capabilities = .init(bounding: ["CAP_FLY"]) }
        expect("process.capabilities.ambient", .warn) {
            $0.process?.capabilities = .init(permitted: ["CAP_CHOWN"], ambient: ["CAP_CHOWN"])
        }
        expect("mounts[0].destination", .warn) { $0.mounts[0].destination = "proc" }
    }

    @Test func whatChangesTheContainerIsRefused() {
        expect("windows", .refuse) { $0.windows = Opaque() }
        expect("linux.namespaces", .refuse) { $0.linux?.namespaces[2].path = "/proc/1/ns/ipc" }
        expect("mounts[0].uidMappings", .refuse) {
            $0.mounts[0].uidMappings = [.init(containerID: 0, hostID: 1, size: 1)]
        }
        expect("linux.namespaces", .refuse) { $0.linux?.namespaces.removeAll { $0.kind == .mount } }
        expect("linux.intelRdt", .refuse) { $0.linux?.intelRdt = .init() }
        expect("linux.seccomp.defaultAction", .refuse) { $0.linux?.seccomp = .init(defaultAction: "SCMP_ACT_NOTIFY") }
        expect("linux.seccomp.syscalls[0].action", .refuse) {
            $0.linux?.seccomp = .init(defaultAction: "SCMP_ACT_ALLOW")
            $0.linux?.seccomp?.syscalls = [.init(names: ["mount"], action: "SCMP_ACT_NOTIFY")]
        }
        expect("linux.personality.flags", .refuse) {
            $0.linux?.personality = .init(domain: "LINUX32")
            $0.linux?.personality?.flags = ["x"]
        }
        expect("mounts[0].options", .refuse) { $0.mounts[0].options = ["idmap"] }
        for option in ["shared", "rshared"] {
            expect("mounts[0].options", .refuse) { $0.mounts[0].options = ["rbind", option] }
        }
        for device: Linux.Device in [
            .init(path: "/dev/sdb", type: "b", major: 8, minor: 16),
            .init(path: "/dev/kvm", type: "c", major: 10, minor: 232),
            .init(path: "/dev/mem", type: "c", major: 1, minor: 1),
        ] {
            expect("linux.devices[0]", .refuse) { $0.linux?.devices = [device] }
        }
        expect("linux.resources.memory.swappiness", .refuse) {
            $0.linux?.resources = .init()
            $0.linux?.resources?.memory = .init()
            $0.linux?.resources?.memory?.swappiness = 60
        }
        expect("linux.resources.blockIO.throttleReadBpsDevice", .refuse) {
            $0.linux?.resources = .init()
            $0.linux?.resources?.blockIO = .init()
            $0.linux?.resources?.blockIO?.throttleReadBpsDevice = [.init(major: 8, minor: 0, rate: 1)]
        }
        expect("linux.resources.hugepageLimits", .refuse) {
            $0.linux?.resources = .init()
            $0.linux?.resources?.hugepageLimits = [.init(pageSize: "2MB", limit: 1 << 21)]
        }
    }

    @Test func theAdministratorDecides() {
        var policy = Unsupported.Policy()
        (policy.ineffectiveLimits, policy.labels) = (.warn, .refuse)
        var spec = Spec.standard()
        spec.process?.selinuxLabel = "x"
        spec.process?.apparmorProfile = "y"
        spec.linux?.mountLabel = "z"
        var resources = Linux.Resources()
        resources.memory = .init()
        resources.memory?.limit = 1 << 20
        resources.memory?.swappiness = 60
        resources.hugepageLimits = [.init(pageSize: "2MB", limit: 1 << 21)]
        spec.linux?.resources = resources
        let found = Dictionary(uniqueKeysWithValues: spec.unsupported(policy: policy).map { ($0.field, $0.verdict) })
        #expect(
            found == [
                "process.selinuxLabel": .refuse, "process.apparmorProfile": .refuse, "linux.mountLabel": .refuse,
                "linux.resources.memory.swappiness": .warn, "linux.resources.hugepageLimits": .warn,
            ])
        resources.removeIneffectiveLimits()
        #expect(resources.unsupported() == [])
        #expect(resources.memory?.limit == 1 << 20)
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
            // The network is the machine's, whatever path it has on the host; a shared namespace is where the guest keeps it.
            $0.linux?.namespaces[1].path = "/run/netns/x"
            $0.linux?.namespaces[2].path = "/run/martlet/sandbox/ns/ipc"
            $0.linux?.namespaces[0].path = "/run/martlet/containers/x/ns/pid"
            $0.linux?.devices = [.init(path: "/dev/null", type: "c", major: 1, minor: 3)]
        }
        #expect(spec == [])
    }
}
