import Glibc
import LinuxSystem
import Testing

extension Containers {
    /// Limits and counters of pods and their containers.
    @Suite(.enabled(if: CRI.obstacle == nil, "\(CRI.obstacle ?? "")"))
    struct CRIResourceTests {
        private static let mebibyte = 1 << 20

        /// A container's limit in MiB.
        private func limit(_ mebibytes: Int) -> JSONValue {
            ["memory_limit_in_bytes": .number(Double(mebibytes * Self.mebibyte))]
        }

        /// MiB of the machine that a container runs in.
        private func machine(_ container: CRIContainer) throws -> Int {
            let text = try container.shell("grep MemTotal /proc/meminfo | tr -s ' ' | cut -d ' ' -f 2")
            return try #require(Int(text.trimmed)) / 1024
        }

        /// By the pod's resources, and by its control group as older kubelets have it.
        @Test func aPodsLimitIsItsMachines() throws {
            try CRI.play { cri in
                let told = try cri.run { $0["linux"]["resources"] = limit(320) }
                let first = try told.start("first")
                // 320 and vm.overhead_mib; some of it is the kernel's.
                #expect((320..<384).contains(try machine(first)))
                try told.remove()

                let config = try cri.newPod()
                try HostGroup.limit(config["linux"]["cgroup_parent"].text, memory: 416 * Self.mebibyte)
                let reply = try cri.call("RunPodSandbox", ["config": config, "runtime_handler": "martlet"])
                let grouped = CRIPod(cri, id: reply["pod_sandbox_id"].text, config: config)
                // 416 less vm.host_mib.
                #expect((312..<376).contains(try machine(try grouped.start("first"))))
                try grouped.remove()

                let small = try cri.newPod()
                try HostGroup.limit(small["linux"]["cgroup_parent"].text, memory: 32 * Self.mebibyte)
                let refused = #expect(throws: CRIError.self) {
                    try cri.call("RunPodSandbox", ["config": small, "runtime_handler": "martlet"])
                }
                let words = "\(refused.map { "\($0)" } ?? "")"
                #expect(words.contains("the pod's control group, 32 MiB, less vm.host_mib"), "\(words)")
            }
        }

        /// Raised within the machine; above it refused with both numbers.
        @Test func aLimitIsChanged() throws {
            try CRI.play(settings: "vm.memory_mib = 256\nvm.max_memory_mib = 640") { cri in
                let pod = try cri.run()
                let container = try pod.start("one") { $0["linux"]["resources"] = limit(32) }
                func fill(_ mebibytes: Int) throws -> Int {
                    try container.execute(["/bin/sh", "-c", "head -c \(mebibytes << 20) /dev/zero | tail >/dev/null"])
                        .code
                }
                #expect(try fill(64) != 0)
                _ = try pod.call(
                    "UpdateContainerResources", ["container_id": "\(container.id)", "linux": limit(160)])
                #expect(try fill(64) == 0)
                // The machine grows with it.
                _ = try pod.call(
                    "UpdateContainerResources", ["container_id": "\(container.id)", "linux": limit(320)])
                #expect(try fill(270) == 0)
                let refused = #expect(throws: CRIError.self) {
                    try pod.call("UpdateContainerResources", ["container_id": "\(container.id)", "linux": limit(900)])
                }
                let words = "\(refused.map { "\($0)" } ?? "")"
                #expect(
                    words.contains("with 900 MiB the pod's machine needs 964 MiB; it can have 640 MiB on this host"),
                    "\(words)")
                #expect(try fill(64) == 0)
                let large = #expect(throws: CRIError.self) {
                    try pod.start("large") { $0["linux"]["resources"] = limit(512) }
                }
                let both = "\(large.map { "\($0)" } ?? "")"
                #expect(both.contains("needs 896 MiB; it can have 640 MiB"), "\(both)")
                try pod.remove()
            }
        }

        /// A container that takes more than its limit ends; its pod and its neighbours go on.
        @Test func outOfMemoryIsTold() throws {
            try CRI.play { cri in
                let pod = try cri.run()
                let neighbour = try pod.start("neighbour")
                let greedy = try pod.start("greedy", "exec tail /dev/zero") { $0["linux"]["resources"] = limit(48) }
                let status = try greedy.wait()
                #expect(status["exit_code"].int == 137)
                try waiting(within: .seconds(10), for: "OOMKilled") {
                    try greedy.status["reason"].text == "OOMKilled"
                }
                #expect(try pod.isReady)
                #expect(try neighbour.execute(["/bin/true"]).code == 0)
                try pod.remove()
            }
        }

        /// What a kubelet reads is what the guest counts.
        @Test func countersAreTheGuests() throws {
            try CRI.play { cri in
                let pod = try cri.run()
                let script = """
                    i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done
                    head -c 33554432 /dev/urandom >/dev/shm/data; echo ready; sleep 1000
                    """
                let (one, two) = (try pod.start("one", script), try pod.start("two"))
                try one.wait(forLog: "stdout F ready")
                // The guest's own files.
                let files = try one.shell(
                    """
                    cd /sys/fs/cgroup$(cut -d : -f 3 /proc/self/cgroup)
                    cat memory.current; grep usage_usec cpu.stat; grep inactive_file memory.stat
                    """)
                let stats = try pod.call("ContainerStats", ["container_id": "\(one.id)"])["stats"]
                let words = files.split(whereSeparator: \.isWhitespace)
                try #require(words.count == 5, "\(files)")
                let (memory, cpu, cold) = (Double(words[0])!, Double(words[2])!, Double(words[4])!)
                func near(_ value: JSONValue, _ wanted: Double) -> Bool {
                    abs(Double(value.int ?? 0) - wanted) <= wanted / 10
                }
                #expect(memory > 33_554_432)
                #expect(
                    near(stats["memory"]["working_set_bytes"]["value"], memory - cold),
                    "\(stats["memory"]) and \(files)")
                #expect(
                    near(stats["cpu"]["usage_core_nano_seconds"]["value"], cpu * 1000), "\(stats["cpu"]) and \(files)")
                #expect(stats["attributes"]["metadata"]["name"].text == "one")
                let listed = try pod.call("ListContainerStats", ["filter": ["pod_sandbox_id": "\(pod.id)"]])["stats"]
                    .list
                #expect(Set(listed.map { $0["attributes"]["id"].text }) == [one.id, two.id])
                for entry in listed { #expect((entry["memory"]["working_set_bytes"]["value"].int ?? 0) > 0) }
                try pod.remove()
            }
        }
    }
}
