import Glibc
import LinuxSystem
import Testing

extension Containers {
    /// What a pod's security context says holds in its machine.
    @Suite(.enabled(if: CRI.obstacle == nil, "\(CRI.obstacle ?? "")"))
    struct CRISecurityTests {
        @Test func aContextIsKept() throws {
            try CRI.play { cri in
                let pod = try cri.run {
                    $0["linux"]["sysctls"] = ["net.core.somaxconn": "1234", "kernel.shm_rmid_forced": "1"]
                    $0["linux"]["security_context"]["seccomp"] = ["profile_type": "RuntimeDefault"]
                }
                let container = try pod.start("one") {
                    $0["working_dir"] = "/tmp"
                    $0["envs"] = [["key": "WORD", "value": "a b"]]
                    var context = $0["linux"]["security_context"]
                    context["run_as_user"] = ["value": 1000]
                    context["run_as_group"] = ["value": 2000]
                    context["supplemental_groups"] = [3000, 4000]
                    context["no_new_privs"] = true
                    context["readonly_rootfs"] = true
                    context["capabilities"] = ["drop_capabilities": ["ALL"], "add_capabilities": ["NET_BIND_SERVICE"]]
                    context["seccomp"] = ["profile_type": "RuntimeDefault"]
                    context["masked_paths"] = ["/proc/kcore", "/proc/keys", "/proc/timer_list"]
                    context["readonly_paths"] = ["/proc/sys"]
                    $0["linux"]["security_context"] = context
                    $0["linux"]["resources"] = [
                        "cpu_shares": 512, "cpu_period": 100_000, "cpu_quota": 50_000, "oom_score_adj": 900,
                        "memory_limit_in_bytes": 67_108_864,
                    ]
                }
                // The first process's, and an exec's.
                for process in ["1", "self"] {
                    let facts = try container.shell(
                        "grep -E '^(Uid|Gid|Groups|NoNewPrivs|Seccomp|CapBnd):' /proc/\(process)/status | tr '\\t' ' '; cat /proc/\(process)/oom_score_adj"
                    ).lines
                    #expect(
                        facts == [
                            "Uid: 1000 1000 1000 1000", "Gid: 2000 2000 2000 2000", "Groups: 2000 3000 4000",
                            "CapBnd: 0000000000000400", "NoNewPrivs: 1", "Seccomp: 2", "900",
                        ], "\(facts)")
                }
                #expect(try container.shell("echo $WORD; pwd") == "a b\n/tmp\n")
                #expect(try container.execute(["/bin/touch", "/tmp/file"]).errors.contains("Read-only"))
                let settings = try container.shell("cat /proc/sys/net/core/somaxconn /proc/sys/kernel/shm_rmid_forced")
                #expect(settings == "1234\n1\n", "\(settings)")
                #expect(try container.shell("cat /proc/keys | wc -c") == "0\n")
                let group = "/sys/fs/cgroup$(cut -d : -f 3 /proc/self/cgroup)"
                #expect(try container.shell("cat \(group)/cpu.max \(group)/memory.max") == "50000 100000\n67108864\n")
                try pod.remove()
            }
        }
    }
}

extension String {
    /// Each without spaces around it.
    fileprivate var lines: [String] { split(separator: "\n").map { String($0).trimmed } }
}
