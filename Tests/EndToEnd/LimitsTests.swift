import OCISpec
import Testing

extension Containers {
    /// What a specification limits, seen from inside the container.
    @Suite struct LimitsTests {
        @Test func controlGroupsLimit() throws {
            try Scene.play { scene in
                let script = """
                    cd /sys/fs/cgroup
                    for f in memory.max memory.swap.max memory.low memory.high pids.max cpu.weight cpu.max cpuset.cpus; do
                        echo $f $(cat $f); done
                    grep Cpus_allowed_list /proc/self/status | tr -s '\\t' ' '
                    tail /dev/zero; echo ended $?; grep '^oom_kill ' memory.events
                    timeout 1 sh -c 'while :; do :; done'; awk '/nr_throttled/ { print "throttled", ($2 > 0) }' cpu.stat
                    (for i in $(seq 60); do sleep 3 & done) 2>&1 | tail -n 1; grep max pids.events
                    cat /proc/self/oom_score_adj
                    """
                let bundle = try scene.bundle(script: script) { spec in
                    var memory = Linux.Resources.Memory()
                    (memory.limit, memory.swap, memory.reservation) = (64 << 20, 64 << 20, 8 << 20)
                    var cpu = Linux.Resources.CPU()
                    (cpu.shares, cpu.quota, cpu.period, cpu.cpus) = (512, 40_000, 100_000, "1")
                    var resources = Linux.Resources()
                    (resources.memory, resources.cpu, resources.pids) = (memory, cpu, .init(limit: 30))
                    resources.unified = ["memory.high": "max"]
                    spec.linux?.resources = resources
                    spec.process?.oomScoreAdj = 500
                }
                let outcome = try scene.run(bundle: bundle, global: scene.configuration("vm.vcpus = 2"))
                #expect(outcome.code == 0, "\(outcome.errorText)")
                #expect(
                    outcome.lines == [
                        "memory.max 67108864", "memory.swap.max 0", "memory.low 8388608", "memory.high max",
                        "pids.max 30", "cpu.weight 59", "cpu.max 40000 100000", "cpuset.cpus 1", "Cpus_allowed_list: 1",
                        "ended 137", "oom_kill 1", "throttled 1",
                        "/bin/sh: can't fork: Resource temporarily unavailable", "max 1",
                        "500",
                    ], "\(outcome.errorText)")
            }
        }

        @Test func devicesAndSystemCallsAreDenied() throws {
            try Scene.play { scene in
                let script = """
                    head -c 1 /dev/zero | wc -c; (: </dev/mem) 2>&1; (: </dev/fuse) && echo read; (: >/dev/fuse) 2>&1
                    ls -l /dev/fifo | cut -c1-10; mknod /dev/made c 1 1 && (: </dev/made) 2>&1
                    mkdir /tmp/x 2>&1; chmod 777 /tmp 2>&1; chmod 700 /tmp && echo changed
                    chroot / true; echo $?; grep -E '^(Seccomp|CapEff|CapAmb):' /proc/self/status | tr -s '\\t' ' '
                    (: >/proc/sys/kernel/hostname) 2>&1; cat /proc/sys/kernel/msgmax /proc/sys/kernel/domainname
                    ulimit -c; ulimit -n; wc -c </masked/file; uname -m
                    """
                let names = ["CAP_MKNOD", "CAP_FOWNER", "CAP_SYS_CHROOT", "CAP_DAC_OVERRIDE"]
                let bundle = try scene.bundle(script: script) { spec in
                    spec.root?.readonly = false
                    spec.linux?.devices = [
                        .init(path: "/dev/mem", type: "c", major: 1, minor: 1),
                        .init(path: "/dev/fuse", type: "c", major: 10, minor: 229),
                        .init(path: "/dev/fifo", type: "p", fileMode: 0o640),
                    ]
                    var rule = Linux.Resources.DeviceRule(allow: true, access: "r")
                    (rule.type, rule.major, rule.minor) = ("c", 10, 229)
                    var resources = Linux.Resources()
                    resources.devices = [.init(allow: false, access: "rwm"), rule]
                    spec.linux?.resources = resources
                    var seccomp = Linux.Seccomp(defaultAction: "SCMP_ACT_ALLOW")
                    var failing = Linux.Seccomp.Rule(names: ["mkdir", "mkdirat"], action: "SCMP_ACT_ERRNO")
                    failing.errnoRet = 5
                    var open = Linux.Seccomp.Rule(names: ["chmod"], action: "SCMP_ACT_ERRNO")
                    open.args = [.init(index: 1, value: 0o777, op: "SCMP_CMP_EQ")]
                    seccomp.syscalls = [failing, open, .init(names: ["chroot"], action: "SCMP_ACT_KILL_PROCESS")]
                    spec.linux?.seccomp = seccomp
                    spec.linux?.personality = .init(domain: "LINUX32")
                    spec.linux?.sysctl = ["kernel.msgmax": "4096"]
                    spec.linux?.maskedPaths.append("/masked/file")
                    spec.domainname = "example.org"
                    spec.process?.rlimits = [
                        Rlimit(type: "RLIMIT_NOFILE", hard: 300, soft: 200),
                        Rlimit(type: "RLIMIT_CORE", hard: 0, soft: 0),
                    ]
                    spec.process?.capabilities = Capabilities(
                        bounding: names, effective: names, inheritable: names, permitted: names, ambient: names)
                }
                try Command.run("mkdir", ["\(bundle)/rootfs/masked"])
                try scene.write("\(bundle)/rootfs/masked/file", "a secret")
                let global = try scene.configuration("spec.host_devices = \"warn\"")
                let outcome = try scene.run(bundle: bundle, global: global)
                #expect(outcome.code == 0, "\(outcome.errorText)")
                let denied = "Operation not permitted"
                #expect(
                    outcome.lines == [
                        "1", "/bin/sh: can't open /dev/mem: \(denied)", "read",
                        "/bin/sh: can't create /dev/fuse: \(denied)", "prw-r-----",
                        "/bin/sh: can't open /dev/made: \(denied)",
                        "mkdir: can't create directory '/tmp/x': Input/output error",
                        "chmod: /tmp: \(denied)", "changed", "159", "CapEff: 000000000804000a",
                        "CapAmb: 000000000804000a",
                        "Seccomp: 2", "/bin/sh: can't create /proc/sys/kernel/hostname: Read-only file system", "4096",
                        "example.org", "0", "200", "0", "i686",
                    ], "\(outcome.errorText)")
            }
        }

        /// Before a machine is started.
        @Test func whatCannotActIsRefusedByName() throws {
            try Scene.play { scene in
                let bundle = try scene.bundle(script: "echo ran") { spec in
                    var resources = Linux.Resources()
                    resources.hugepageLimits = [.init(pageSize: "2MB", limit: 1 << 21)]
                    spec.linux?.resources = resources
                }
                let refused = try scene.run(bundle: bundle)
                #expect(refused.code != 0)
                #expect(refused.errorText.contains("linux.resources.hugepageLimits: the guest has no huge pages"))
                // Or warned of, where the configuration says so: the container runs without.
                let global = try scene.configuration("spec.ineffective_limits = \"warn\"")
                let outcome = try scene.run(bundle: bundle, global: global)
                #expect(outcome.lines == ["ran"], "\(outcome.errorText)")
            }
        }
    }
}
