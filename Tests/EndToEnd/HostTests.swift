import Glibc
import LinuxSystem
import OCISpec
import Testing

extension Containers {
    /// What a container has on the host.
    @Suite struct HostTests {
        private static let cpuset = "/sys/fs/cgroup/cpuset"

        /// Of cgroup version 1: no process can join a cgroup without CPUs or memory nodes.
        @Test(
            .enabled(
                if: access("\(cpuset)/cgroup.clone_children", F_OK) == 0 && access("\(cpuset)/cpuset.mems", F_OK) == 0,
                "no cpuset of cgroup version 1"))
        func anEmptyCpusetIsFilledFromAbove() throws {
            try Scene.play { scene in
                let parent = "\(Self.cpuset)/\(scene.token)"
                #expect(mkdir(parent, 0o755) == 0)
                defer { HostGroup.remove("/\(scene.token)") }
                try #require(Leftovers.read("\(parent)/cpuset.mems")?.trimmed == "")
                let bundle = try scene.bundle(script: "echo ok") {
                    $0.linux?.cgroupsPath = "/\(scene.token)/inner/pod"
                }
                defer { for hierarchy in HostGroup.children(of: "/\(scene.token)") { rmdir(hierarchy) } }
                let outcome = try scene.run(bundle: bundle)
                #expect(outcome.code == 0 && outcome.text == "ok\n", "\(outcome.errorText)")
                #expect(Leftovers.read("\(parent)/cpuset.mems") == Leftovers.read("\(Self.cpuset)/cpuset.mems"))
                #expect(Leftovers.read("\(parent)/cpuset.cpus") == Leftovers.read("\(Self.cpuset)/cpuset.cpus"))
            }
        }

        /// As long as the name of a file can be, below a directory whose name is long too.
        @Test func idsAreLong() throws {
            try Scene.play { scene in
                let id = scene.newID() + String(repeating: "x", count: 180)
                let outcome = try scene.run(bundle: try scene.bundle(script: "echo ok"), id: id)
                #expect(outcome.code == 0 && outcome.text == "ok\n", "\(outcome.errorText)")
            }
        }

        /// Hooks of the host get their whole argv, and begin in the bundle.
        @Test func hooksAreCalledByTheirNames() throws {
            try Scene.play { scene in
                let hook = { (name: String) in
                    Hook(path: "/bin/sh", args: [name, "-c", "echo \"$(tr '\\0' ' ' </proc/$$/cmdline)\" >>hooks"])
                }
                let bundle = try scene.bundle(script: "true") {
                    $0.hooks = Hooks()
                    $0.hooks?.prestart = [hook("one")]
                    $0.hooks?.createRuntime = [hook("two")]
                    $0.hooks?.poststart = [hook("three")]
                    $0.hooks?.poststop = [hook("four")]
                }
                let outcome = try scene.run(bundle: bundle)
                #expect(outcome.code == 0, "\(outcome.errorText)")
                let names = (Leftovers.read("\(bundle)/hooks") ?? "").split(separator: "\n").map {
                    $0.split(separator: " ").first.map(String.init)
                }
                #expect(names == ["one", "two", "three", "four"])
            }
        }
    }
}
