import Glibc
import LinuxSystem
import Synchronization
import Testing

extension Containers {
    /// Many pods, one after the other and at once; a part of `make test-all`.
    @Suite(.enabled(if: CRI.obstacle == nil && Lab.everything, "\(CRI.obstacle ?? "a part of make test-all")"))
    struct CRIScaleTests {
        /// What could pile up on the host.
        private struct Count: Equatable, CustomStringConvertible {
            var processes = Leftovers.livingProcesses
            var mounts = Count.lines("/proc/self/mountinfo")
            /// The scene's own: others' come and go.
            var sockets: Int
            var namespaces = Leftovers.list("/run/netns").count
            /// containerd's own descriptors.
            var descriptors: Int

            init(_ cri: CRI) {
                sockets = Count.lines("/proc/net/unix") { $0.contains(cri.scene.token) }
                descriptors = Leftovers.list("/proc/\(cri.engine.pid ?? 0)/fd").count
            }

            private static func lines(_ file: String, _ counts: (Substring) -> Bool = { _ in true }) -> Int {
                (Leftovers.read(file) ?? "").split(separator: "\n").count(where: counts)
            }

            var description: String {
                "\(processes) processes, \(mounts) mounts, \(sockets) sockets, \(namespaces) namespaces, "
                    + "\(descriptors) descriptors of containerd's"
            }
        }

        @Test func aHundredPodsLeaveNothing() throws {
            try CRI.play { cri in
                func live() throws {
                    let pod = try cri.run()
                    let container = try pod.start("one", "echo up; sleep 1000")
                    #expect(try container.execute(["/bin/echo", "here"]).output == "here\n")
                    try container.stop(timeout: 0)
                    try container.remove()
                    try pod.remove()
                    #expect(cri.settledLeftovers() == [])
                }
                // The first ones open what stays open.
                for _ in 0..<5 { try live() }
                let before = Count(cri)
                for _ in 0..<100 { try live() }
                let after = Count(cri)
                print("before: \(before)\nafter:  \(after)")
                #expect(after.processes <= before.processes && after.mounts <= before.mounts)
                #expect(after.sockets <= before.sockets && after.namespaces <= before.namespaces)
                #expect(after.descriptors <= before.descriptors + 4)
            }
        }

        /// Pods of 128 MiB, each in a control group as the RuntimeClass's overhead makes it; five start at a time.
        @Test func thirtyPodsAtOnce() throws {
            // All these guests share the few processors of one host.
            let settings = """
                vm.overhead_mib = 64
                vm.host_mib = \(Lab.driver == .kvm ? 40 : 130)
                agent.heartbeat_interval_ms = 5000
                agent.heartbeat_timeout_ms = 60000
                """
            try CRI.play(settings: settings) { cri in
                let (limit, overhead) = (128, Lab.driver == .kvm ? 128 : 224)
                var pods: [CRIPod] = []
                for _ in 0..<30 {
                    let config = try cri.newPod {
                        $0["linux"]["resources"] = ["memory_limit_in_bytes": .number(Double(limit << 20))]
                    }
                    try HostGroup.limit(config["linux"]["cgroup_parent"].text, memory: (limit + overhead) << 20)
                    let reply = try cri.call("RunPodSandbox", ["config": config, "runtime_handler": "martlet"])
                    pods.append(CRIPod(cri, id: reply["pod_sandbox_id"].text, config: config))
                }
                let containers = try pods.map { try $0.start("one") }
                for (index, container) in containers.enumerated() {
                    #expect(try container.execute(["/bin/hostname"]).output == "pod\(index + 1)\n")
                }
                let memory = try pods.map { try privateMemory(of: $0) }.sorted()
                print("private memory per pod, MiB: least \(memory[0]), median \(memory[15]), most \(memory[29])")
                for pod in pods { try pod.remove() }
            }
        }

        /// MiB that only a pod's processes have, from /proc/PID/smaps_rollup; guest memory that is shared among them counts once.
        private func privateMemory(of pod: CRIPod) throws -> Int {
            let state = Leftovers.read(pod.cri.engine.stateFile(of: pod.id)) ?? ""
            let pids = state.matches(of: try Regex("\"pid\":([0-9]+)", as: (Substring, Substring).self)).map { $0.1 }
            // Pss shares what several have among them: the pod's sum of it is what the pod has, and its share of libraries.
            let kibibytes = Set(pids).map { pid in
                let text = Leftovers.read("/proc/\(pid)/smaps_rollup") ?? ""
                let line = text.split(separator: "\n").first { $0.hasPrefix("Pss:") } ?? ""
                return Int(line.split(separator: " ").dropFirst().first ?? "") ?? 0
            }
            return kibibytes.reduce(0, +) / 1024
        }
    }
}
