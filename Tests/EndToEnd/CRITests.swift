import Glibc
import LinuxSystem
import Testing

extension Containers {
    /// Pods as a kubelet makes them, by the CRI plugin of the host's containerd.
    @Suite(.enabled(if: CRI.obstacle == nil, "\(CRI.obstacle ?? "")"))
    struct CRITests {
        /// What a kubelet does for the smallest pod, and the namespaces that its containers share.
        @Test(arguments: CRI.versions) func aPodRuns(version: String) throws {
            try CRI.play { cri in
                let pod = try cri.run(version: version)
                #expect(try pod.isReady)
                if !CRIO.isWanted { #expect(try pod.status["runtime_handler"].text == "martlet") }
                let container = try pod.start("first", "echo hello; hostname; sleep 1000")
                try container.wait(forLog: "stdout F hello")
                try container.wait(forLog: "stdout F pod1")
                #expect(try container.state == "CONTAINER_RUNNING")
                let kernel = try container.execute(["/bin/uname", "-r"])
                let own = try Command.run("uname", ["-r"])
                #expect(kernel.code == 0 && kernel.output != own)
                #expect(try cri.shell("busybox ping -c 1 -W 5 \(pod.address)").code == 0)
                try container.stop(timeout: 0)
                #expect(try container.status["exit_code"].int == 137)
                try container.remove()
                try pod.remove()
                #expect(cri.settledLeftovers() == [])
            }
        }

        @Test func containersShareAPod() throws {
            try CRI.play { cri in
                let pod = try cri.run()
                let first = try pod.start("first", "nc -l -p 80 -e /bin/echo served; sleep 1000")
                let second = try pod.start("second")
                // The network.
                #expect(
                    try second.shell("for i in $(seq 50); do nc 127.0.0.1 80 && break; sleep 0.1; done") == "served\n")
                // IPC and the host's name.
                let queue = try first.shell("for kind in ipc uts; do readlink /proc/self/ns/$kind; done")
                #expect(try second.shell("for kind in ipc uts; do readlink /proc/self/ns/$kind; done") == queue)
                try first.shell("echo shared >/dev/shm/file")
                #expect(try second.shell("cat /dev/shm/file") == "shared\n")
                #expect(try second.shell("hostname") == "pod1\n")
                // Not the processes, and not the files.
                #expect(try second.shell("ps | grep -c 'nc -l'; true").trimmed != "2")
                #expect(try first.shell("readlink /proc/self/ns/pid") != second.shell("readlink /proc/self/ns/pid"))
                try first.shell("echo own >/tmp/file")
                #expect(try second.execute(["/bin/cat", "/tmp/file"]).code == 1)

                // One goes and comes back; then both go, and the pod waits for the next.
                try first.stop()
                #expect(try second.state == "CONTAINER_RUNNING")
                try first.remove()
                let again = try pod.start("first", "echo again; sleep 1000")
                try again.wait(forLog: "stdout F again")
                #expect(try again.execute(["/bin/cat", "/tmp/file"]).code == 1)
                for container in [again, second] {
                    try container.stop(timeout: 0)
                    try container.remove()
                }
                #expect(try pod.isReady)
                let last = try pod.start("last")
                #expect(try last.shell("cat /dev/shm/file") == "shared\n")
                // As a kubelet does that is in a hurry: the containers with the pod.
                try pod.remove()
                #expect(cri.settledLeftovers() == [])
            }
        }

        @Test func fiveContainersShareTheirProcesses() throws {
            try CRI.play { cri in
                let pod = try cri.run { $0["linux"]["security_context"]["namespace_options"]["pid"] = "POD" }
                let containers = try (1...5).map { try pod.start("number\($0)", "sleep 100\($0); true") }
                for container in containers {
                    let found = try container.shell("ps -o args | grep '^sleep 100[1-5]' | sort")
                    #expect(found == (1...5).map { "sleep 100\($0)\n" }.joined())
                }
                // The end of the first doesn't end the others.
                try containers[0].stop(timeout: 0)
                #expect(try containers[1].shell("ps -o args | grep -c '^sleep 100[1-5]'") == "4\n")
                #expect(throws: CRIError.self) { try containers[0].execute(["/bin/true"]) }
                try pod.remove()
            }
        }

        /// Init containers: one ends, the next one starts.
        @Test func containersFollowEachOther() throws {
            try CRI.play { cri in
                let pod = try cri.run()
                for (name, code) in [("first", 0), ("second", 3)] {
                    let container = try pod.start(name, "echo \(name); exit \(code)")
                    let status = try container.wait()
                    #expect(status["exit_code"].int == code)
                    #expect(status["reason"].text == (code == 0 ? "Completed" : "Error"))
                    #expect(container.logLines == ["stdout F \(name)"])
                    try container.remove()
                }
                let main = try pod.start("main", "trap 'echo end; exit 0' TERM; echo main; while :; do sleep 0.1; done")
                try main.wait(forLog: "stdout F main")
                try main.stop(timeout: 20)
                #expect(try main.status["exit_code"].int == 0)
                #expect(main.logLines == ["stdout F main", "stdout F end"])
                try pod.remove()
            }
        }
    }
}
