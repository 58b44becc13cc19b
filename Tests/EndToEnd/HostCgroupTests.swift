import Glibc
import LinuxSystem
import OCISpec
import Testing

extension Containers {
    /// The cgroups on the host of the processes there that stand for containers.
    @Suite struct HostCgroupTests {
        /// The cgroups of a process, one for each hierarchy that is mounted.
        private func cgroups(_ pid: Int32) -> Set<String> {
            let lines = (Leftovers.read("/proc/\(pid)/cgroup") ?? "").split(separator: "\n")
            return Set(lines.map { String($0.split(separator: ":", maxSplits: 2).last ?? "") })
        }

        /// A guest can't use up the host, whether an engine limits it or not.
        @Test func aPodWithoutAGroupHasABoundedOne() throws {
            try Scene.play { scene in
                let container = try CommandLineContainer(scene)
                let pid = try container.create(
                    bundle: scene.bundle(args: ["sleep", "1000"]) { $0.linux?.cgroupsPath = "" })
                #expect(cgroups(pid) == ["/martlet/\(container.id)"])
                func own() -> [String] {
                    HostGroup.children(of: "/martlet").filter { $0.hasSuffix("/\(container.id)") }
                }
                func values(_ names: [String]) -> [Int64?] {
                    own().compactMap { directory in
                        names.lazy.compactMap { Leftovers.read("\(directory)/\($0)") }.first
                    }.map { Int64($0.trimmed) }
                }
                #expect(values(["pids.max"]) == [8192])
                let memory = values(["memory.max", "memory.limit_in_bytes"])
                #expect(memory.count == 1 && (memory[0] ?? 0) > 512 << 20 && (memory[0] ?? .max) < 4 << 30, "\(memory)")
                try container.succeed("delete", "--force", container.id)
                #expect(own().isEmpty)
            }
        }

        /// In one pod, by the network namespace of the first container; both forms of the path.
        @Test func eachContainerHasItsOwn() throws {
            try Scene.play { scene in
                let one = try CommandLineContainer(scene)
                let other = CommandLineContainer(like: one)
                let parent = "/\(scene.token)"
                try HostGroup.make(parent)
                defer { HostGroup.remove(parent) }
                let first = try one.create(
                    bundle: scene.bundle(args: ["sleep", "1000"]) {
                        $0.linux?.cgroupsPath = "\(parent)/one"
                        $0.linux?.resources = .init()
                        $0.linux?.resources?.memory = .init()
                        $0.linux?.resources?.memory?.limit = 64 << 20
                        $0.linux?.resources?.cpu = .init()
                        $0.linux?.resources?.cpu?.quota = 90_000
                        $0.linux?.resources?.cpu?.period = 100_000
                    })
                try one.succeed("start", one.id)
                #expect(cgroups(first) == ["\(parent)/one"])
                let limits = HostGroup.children(of: parent).compactMap { directory in
                    Leftovers.read("\(directory)/memory.max")
                        ?? Leftovers.read("\(directory)/memory.limit_in_bytes")
                }
                #expect(limits.count == 1 && (Int(limits[0].trimmed) ?? 0) >= 64 << 20, "\(limits)")
                let quotas = HostGroup.children(of: parent).compactMap { directory in
                    Leftovers.read("\(directory)/cpu.max") ?? Leftovers.read("\(directory)/cpu.cfs_quota_us")
                }
                #expect(quotas.count == 1 && quotas[0].hasPrefix("90000"), "\(quotas)")

                let slice = "\(scene.token.filter { $0 != "-" }).slice"
                defer { HostGroup.remove("/\(slice)") }
                let second = try other.create(
                    bundle: scene.bundle(args: ["sleep", "1000"]) { spec in
                        spec.linux?.cgroupsPath = "\(slice):martlet:two"
                        spec.linux?.namespaces.removeAll { $0.kind == .network }
                        spec.linux?.namespaces.append(.init(.network, path: "/proc/\(first)/ns/net"))
                    })
                try other.succeed("start", other.id)
                #expect(cgroups(second) == ["/\(slice)/martlet-two.scope"])
                let exec = try other.begin(["exec", other.id, "sleep", "1000"])
                let end = ContinuousClock.now + .seconds(20) * Lab.patience
                func members() -> Int {
                    let directory = HostGroup.children(of: "/\(slice)").first ?? ""
                    return (Leftovers.read("\(directory)/cgroup.procs") ?? "").split(separator: "\n").count
                }
                while members() < 2, ContinuousClock.now < end { usleep(50_000) }
                #expect(members() == 2, "its process on the host, and that of the exec")
                exec.child.signal(SIGTERM)
                _ = try exec.finish()

                try other.succeed("update", "--cpu-quota", "80000", one.id)
                #expect(
                    HostGroup.children(of: parent).contains { directory in
                        (Leftovers.read("\(directory)/cpu.max") ?? Leftovers.read("\(directory)/cpu.cfs_quota_us"))?
                            .hasPrefix("80000") == true
                    })
                try other.succeed("delete", "--force", other.id)
                #expect(HostGroup.children(of: "/\(slice)") == [])
                try one.succeed("delete", "--force", one.id)
                let gone = ContinuousClock.now + .seconds(10) * Lab.patience
                while !HostGroup.children(of: parent).isEmpty, ContinuousClock.now < gone { usleep(50_000) }
                #expect(HostGroup.children(of: parent) == [])
            }
        }

        @Test func oneThatCannotHoldTheMachineIsRefused() throws {
            try Scene.play { scene in
                let parent = "/\(scene.token)"
                try HostGroup.make(parent)
                defer { HostGroup.remove(parent) }
                try HostGroup.limit(parent, memory: 100 << 20)
                let bundle = try scene.bundle(script: "true") { $0.linux?.cgroupsPath = "\(parent)/pod" }
                let outcome = try scene.run(bundle: bundle)
                #expect(
                    outcome.code == 1 && outcome.errorText.contains("a cgroup above linux.cgroupsPath has 100 MiB"),
                    "\(outcome.errorText)")
            }
        }
    }
}
