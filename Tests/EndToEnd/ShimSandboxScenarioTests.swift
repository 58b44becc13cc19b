import Glibc
import LinuxSystem
import OCISpec
import TTRPC
internal import TaskAPI
import Testing

extension Containers {
    /// What containerd's suite for shims (github.com/containerd/shimtest) does with the Sandbox service, without containerd.
    /// docs/shimtest.md has the list.
    @MainActor @Suite(.enabled(if: ShimPod.obstacle == nil, "\(ShimPod.obstacle ?? "")"))
    struct ShimSandboxScenarioTests {
        private func member(
            _ pod: ShimPod, _ script: String, _ rootfs: [ShimPod.RootMount], edit: (inout Spec) -> Void = { _ in }
        ) throws -> ShimProcess {
            try pod.runMember(try pod.member(script: script, edit: edit), rootfs)
        }

        // MARK: The sandbox by itself

        @Test func aSandboxGoesThroughItsStates() throws {
            try Scene.play { scene in
                let bundle = try scene.makeDirectory("sandbox")
                let pod = try ShimPod(scene, bundle: bundle)
                defer { pod.end() }
                let id = pod.id
                #expect(
                    try pod.sandboxRefusal { try await $0.startSandbox(.with { $0.sandboxID = id }) }
                        == .failedPrecondition)
                #expect(
                    try pod.sandboxRefusal { try await $0.pingSandbox(.with { $0.sandboxID = id }) }
                        == .failedPrecondition)
                #expect(try pod.sandboxStatus.state == "SANDBOX_NOTREADY")
                try pod.createSandbox()
                let again = #expect(throws: TTRPCError.self) { try pod.createSandbox("\(id)-dup") }
                #expect(again?.code == .alreadyExists)
                let pid = try pod.startSandbox()
                try checkRunning(pod, pid)

                let server = try pod.process("server")
                let first = try member(pod, "sleep 1000", try scene.busybox())
                let ended = try waitForEnd(of: pod)
                try pod.stopSandbox()
                let exit = try #require(ended.wait(timeout: .seconds(15) * Lab.patience)).get()
                #expect(exit.exitedAt.seconds > 0)
                let status = try pod.sandboxStatus
                #expect(status.state == "SANDBOX_NOTREADY" && status.info["state"] == "SANDBOX_NOTREADY")
                #expect(status.createdAt.seconds > 0 && status.exitedAt.seconds >= status.createdAt.seconds)
                #expect(
                    try pod.sandboxRefusal { try await $0.pingSandbox(.with { $0.sandboxID = id }) }
                        == .failedPrecondition)
                try pod.stopSandbox()
                // A member's end is known, whatever it was.
                #expect(try first.end() != 0)
                for process in ["self", "\(server)"] {
                    let mounts = Leftovers.read("/proc/\(process)/mountinfo") ?? ""
                    #expect(!mounts.contains(scene.token), "\(mounts)")
                }
                try pod.askSandbox {
                    try await $0.shutdownSandbox(.with { $0.sandboxID = id }, timeout: ShimPod.timeout)
                }
            }
        }

        private func checkRunning(_ pod: ShimPod, _ pid: UInt32) throws {
            let id = pod.id
            let status = try pod.sandboxStatus
            #expect(status.state == "SANDBOX_READY" && status.sandboxID == id)
            #expect(status.pid == pid && pid > 0 && kill(Int32(pid), 0) == 0)
            #expect(abs(Int(status.createdAt.seconds) - time(nil)) < 60 && status.exitedAt.seconds == 0)
            #expect(status.info["pid"] == "\(pid)" && status.info["state"] == "SANDBOX_READY")
            try pod.askSandbox { try await $0.pingSandbox(.with { $0.sandboxID = id }) }
            let platform = try pod.askSandbox { try await $0.platform(.with { $0.sandboxID = id }).platform }
            #expect(platform.os == "linux" && platform.architecture == "amd64")
            let answer = try pod.askSandbox { try await $0.sandboxMetrics(.with { $0.sandboxID = id }).metrics }
            let metrics = try MetricsMetrics(serializedBytes: answer.data.value)
            #expect(answer.id == id && metrics.memory.usage > 0 && metrics.cpu.usageUsec > 0)
        }

        /// Asks for the sandbox's end, and goes on.
        private func waitForEnd(of pod: ShimPod) throws -> Promise<Result<SandboxAPIWaitSandboxResponse, any Error>> {
            let ended = try Promise<Result<SandboxAPIWaitSandboxResponse, any Error>>()
            let (id, sandboxes) = (pod.id, pod.sandboxes)
            Task.detached {
                do {
                    let request = SandboxAPIWaitSandboxRequest.with { $0.sandboxID = id }
                    ended.settle(.success(try await sandboxes.waitSandbox(request, timeout: TTRPCClient.noTimeout)))
                } catch { ended.settle(.failure(error)) }
            }
            usleep(200_000)
            #expect(ended.current == nil)
            return ended
        }

        // MARK: Members

        /// Each with layers and a writable image of its own.
        @Test func membersOnImagesComeAndGo() throws {
            try ShimPod.playSandbox { pod, scene, _ in
                let base = try scene.busyboxLayer()
                let one = try member(pod, "echo hello-sandbox", try scene.stack([base]).mounts)
                #expect(try one.result() == ShimResult(code: 0, text: "hello-sandbox\n"))
                let three = try (1...3).map { number in
                    let script =
                        "cat /mark 2>/dev/null; echo \(number) >/mark; cat /mark; [ \(number) = 3 ] && sleep 1000"
                    return try member(pod, script, try scene.stack([base]).mounts)
                }
                #expect(try three[0].finish().output == Array("1\n".utf8))
                #expect(try three[1].finish().output == Array("2\n".utf8))
                try three[2].output.wait(for: "3\n")
                #expect(try pod.state(of: three[2].container).status == .running)
                #expect(try pod.sandboxStatus.state == "SANDBOX_READY")
                #expect(
                    try pod.shell("echo exec-probe-ok; exit 42", in: three[2].container)
                        == ShimResult(code: 42, text: "exec-probe-ok\n"))
                try pod.remove(three[2].container)
                // A task's shutdown does not end a sandbox.
                try pod.shutdown()
                #expect(try pod.sandboxStatus.state == "SANDBOX_READY")
            }
        }

        @Test func membersShareWhatTheyAskFor() throws {
            try ShimPod.playSandbox { pod, scene, pid in
                let rootfs = try scene.busybox()
                try Command.run(
                    "cp", [try Program.path("memshare"), try Program.path("sockets"), "\(rootfs[0].source)/bin/"])
                try Command.shell(
                    "cd \(rootfs[0].source)/bin; mv memshare-* memshare; mv sockets-* sockets", within: .seconds(10))
                try membersShareProcesses(pod, rootfs, pid)
                try membersShareMemory(pod, rootfs, pid)
                try membersShareTheName(pod, rootfs, pid)
                try membersShareTheNetwork(pod, rootfs)
                try theHostsFilesAreLive(pod, scene, rootfs)
                try socketsOfTheHostAreForwarded(pod, scene, rootfs)
                try endsAreTold(pod, rootfs)
                try memoryThatIsOutCostsOneMember(pod, rootfs)
                #expect(try pod.sandboxStatus.state == "SANDBOX_READY")
            }
        }

        /// Runs a member to its end.
        private func run(
            _ script: String, _ pod: ShimPod, _ rootfs: [ShimPod.RootMount], joins: [Linux.Namespace.Kind] = [],
            of pid: UInt32 = 0, edit: (inout Spec) -> Void = { _ in }
        ) throws -> ShimResult {
            try pod.runMember(try pod.member(script: script, joins: joins, of: pid, edit: edit), rootfs).result()
        }

        private func membersShareProcesses(_ pod: ShimPod, _ rootfs: [ShimPod.RootMount], _ pid: UInt32) throws {
            func join(_ script: String, of pid: UInt32) throws -> ShimProcess {
                try pod.runMember(try pod.member(script: script, joins: [.pid], of: pid), rootfs)
            }
            let list = "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"
            let victim = try join("echo up; : victim-mark; sleep 1000; :", of: pid)
            // The pod's process is in the host's namespaces, so others' paths of these mean the same.
            let peer = try join(
                "echo up; : peer-mark; sh -c 'sh -c \"sleep 0.3; exit 3\" & exit 0'; sleep 1000; :", of: 1)
            for process in [victim, peer] { try process.output.wait(for: "up\n") }
            let seen = try join(list, of: pid).result().text
            #expect(seen.contains("victim-mark") && seen.contains("peer-mark"), "\(seen)")
            let own = try run(list, pod, rootfs).text
            #expect(!own.contains("-mark; sleep"), "\(own)")

            #expect(try victim.signal(SIGKILL, all: true) == nil)
            #expect(try victim.result().code == 137)
            #expect(try pod.state(of: peer.container).status == .running)
            let name = peer.container
            let processes = try pod.ask {
                try await $0.pids(.with { $0.id = name }, timeout: ShimPod.timeout).processes
            }
            #expect(!processes.isEmpty)
            // Orphans, of a member that runs and of one that has ended.
            #expect(try join("sleep 1234 & sleep 0.1 & exit 5", of: pid).result().code == 5)
            let zombies =
                "sleep 1; cat /proc/[0-9]*/stat | grep -c ') Z '; cat /proc/[0-9]*/cmdline | grep -c -e '[v]ictim' -e '[1]234'"
            #expect(try join(zombies, of: pid).result().text == "0\n0\n")
            try pod.remove(peer.container)
        }

        private func membersShareMemory(_ pod: ShimPod, _ rootfs: [ShimPod.RootMount], _ pid: UInt32) throws {
            // The same mount for those that share and those that don't.
            let write = "memshare put 4242 segment; memshare map /dev/shm/file mapped"
            let read = "memshare get 4242; memshare see /dev/shm/file"
            let size = "df -k /dev/shm | tail -n 1 | awk '{ print $2 }'; stat -c %a /dev/shm"
            #expect(try run(write, pod, rootfs, joins: [.ipc], of: pid).text == "segment\nmapped\n")
            #expect(try run(read, pod, rootfs).text == "none\nnone\n")
            for pid in [pid, 1] {
                #expect(
                    try run("\(read); \(size)", pod, rootfs, joins: [.ipc], of: pid).text
                        == "segment\nmapped\n65536\n1777\n")
            }
            #expect(try run(write, pod, rootfs).text == "segment\nmapped\n")
            #expect(try run(read, pod, rootfs).text == "none\nnone\n")
        }

        private func membersShareTheName(_ pod: ShimPod, _ rootfs: [ShimPod.RootMount], _ pid: UInt32) throws {
            func may(_ spec: inout Spec) {
                for set in [\Capabilities.bounding, \.effective, \.permitted] {
                    spec.process?.capabilities?[keyPath: set].append("CAP_SYS_ADMIN")
                }
                spec.hostname = ""
            }
            #expect(try run("hostname shared-name", pod, rootfs, joins: [.uts], of: pid, edit: may).code == 0)
            for pid in [pid, 1] {
                #expect(try run("hostname", pod, rootfs, joins: [.uts], of: pid, edit: may).text == "shared-name\n")
            }
            #expect(try run("hostname", pod, rootfs).text != "shared-name\n")
        }

        private func membersShareTheNetwork(_ pod: ShimPod, _ rootfs: [ShimPod.RootMount]) throws {
            let listener = try member(pod, "echo up; nc -l -p 7000", rootfs)
            try listener.output.wait(for: "up\n")
            let client = "until echo shared-netns | nc 127.0.0.1 7000; do sleep 0.1; done 2>/dev/null"
            #expect(try run(client, pod, rootfs).code == 0)
            #expect(try listener.result() == ShimResult(code: 0, text: "up\nshared-netns\n"))
        }

        private func theHostsFilesAreLive(_ pod: ShimPod, _ scene: Scene, _ rootfs: [ShimPod.RootMount]) throws {
            let directory = try scene.makeDirectory("volume")
            try scene.write("volume/data", "AAA\n")
            let member = try member(pod, "sleep 1000", rootfs) { spec in
                spec.mounts.append(
                    Mount(destination: "/data", type: "bind", source: directory, options: ["rbind", "rw"]))
            }
            #expect(try pod.shell("cat /data/data", in: member.container).text == "AAA\n")
            try scene.write("volume/data", "BBB\n")
            #expect(try pod.shell("cat /data/data; echo CCC >/data/back", in: member.container).text == "BBB\n")
            #expect(Leftovers.read("\(directory)/back") == "CCC\n")
            try pod.remove(member.container)
        }

        private func socketsOfTheHostAreForwarded(_ pod: ShimPod, _ scene: Scene, _ rootfs: [ShimPod.RootMount]) throws
        {
            let server = try SocketServer(scene)
            defer { server.end() }
            let path = server.path
            func uds(_ destination: String, source: String, options: [String] = []) -> (inout Spec) -> Void {
                { $0.mounts.append(Mount(destination: destination, type: "uds", source: source, options: options)) }
            }
            let shared = try member(pod, "sleep 1000", rootfs, edit: uds("/run/shared.sock", source: path))
            for count in [8, 4096, 4 << 20] {
                #expect(try pod.shell("sockets echo /run/shared.sock \(count)", in: shared.container).text == "ok\n")
                try server.command.output?.wait(for: "e \(count)\n")
            }
            let other = try run("sockets half /s 100000; sockets first /s", pod, rootfs, edit: uds("/s", source: path))
            #expect(other.text == "ok\nok\n")
            try pod.remove(shared.container)
            let refused = [
                (uds("/s", source: "\(scene.directory)/none"), "No such file"),
                (uds("/s", source: scene.directory), "is not a socket"),
                (uds("/s", source: path, options: ["ro"]), "ro: a mount of type uds has none"),
            ]
            for (edit, words) in refused {
                let error = #expect(throws: TTRPCError.self) { _ = try run("true", pod, rootfs, edit: edit) }
                #expect(error?.message.contains(words) == true, "\(error.map { "\($0)" } ?? "")")
            }
        }

        private func endsAreTold(_ pod: ShimPod, _ rootfs: [ShimPod.RootMount]) throws {
            for code in [0, 1, 42, 127, 255] as [UInt32] { #expect(try run("exit \(code)", pod, rootfs).code == code) }
            // The first process of a pid namespace gets no signal that it has not asked for, but of those above.
            let polite = try member(pod, "trap 'echo bye; exit 143' TERM; echo up; while :; do sleep 0.1; done", rootfs)
            try polite.output.wait(for: "up\n")
            #expect(try polite.signal(SIGTERM) == nil)
            #expect(try polite.result() == ShimResult(code: 143, text: "up\nbye\n"))
            let plain = try member(pod, "exec sleep 1000", rootfs)
            #expect(try plain.signal(SIGTERM) == nil)
            usleep(300_000)
            #expect(try pod.state(of: plain.container).status == .running)
            #expect(try plain.signal(SIGKILL) == nil)
            #expect(try plain.result().code == 137)
            let ticks = "i=0; while [ $((i += 1)) -le 50 ]; do echo tick $i; done; exit 7"
            #expect(
                try run(ticks, pod, rootfs) == ShimResult(code: 7, text: (1...50).map { "tick \($0)\n" }.joined()))
            let burst = try member(pod, "head -c \(ShimTaskScenarioTests.burst) /dev/zero; exit 3", rootfs)
            let (code, output) = try burst.finish()
            #expect(code == 3 && output.count == ShimTaskScenarioTests.burst)
            let bundle = try pod.member(script: "") { $0.process?.args = ["/bin/this-is-missing"] }
            let error = #expect(throws: TTRPCError.self) { _ = try pod.runMember(bundle, rootfs) }
            #expect(error?.message.contains("/bin/this-is-missing") == true, "\(error.map { "\($0)" } ?? "")")
        }

        private func memoryThatIsOutCostsOneMember(_ pod: ShimPod, _ rootfs: [ShimPod.RootMount]) throws {
            let peer = try member(pod, "sleep 1000", rootfs)
            let victim = try member(pod, "exec tail /dev/zero", rootfs) { spec in
                var memory = Linux.Resources.Memory()
                (memory.limit, memory.swap) = (128 << 20, 128 << 20)
                var resources = Linux.Resources()
                resources.memory = memory
                spec.linux?.resources = resources
            }
            #expect(try victim.result().code == 137)
            try pod.events.wait(for: "/tasks/oom")
            #expect(try pod.state(of: peer.container).status == .running)
            #expect(try pod.shell("echo spared", in: peer.container).text == "spared\n")
            try pod.remove(peer.container)
        }

        // MARK: The network

        /// Both ways, and by names. The peer is in the given namespace's network only, and sees the address that the pod has there.
        @Test func trafficIsThatOfTheGivenNamespace() throws {
            try Scene.play { scene in
                let net = try Net(scene)
                defer { try? net.remove() }
                let peer = try NetworkPeer(net, scene)
                defer { peer.end() }
                let network = try net.pod()
                try net.connect(network, number: 2)
                let pod = try ShimPod(scene, bundle: try scene.makeDirectory("sandbox"))
                defer { pod.end() }
                try pod.createSandbox(network: Net.path(network))
                try pod.startSandbox()
                let rootfs = try scene.busybox()
                try Command.run("cp", [try Program.path("sockets"), "\(rootfs[0].source)/bin/sockets"])
                let script = """
                    echo hello | nc 10.99.0.1 9000; sockets ask 10.99.0.1 datagram
                    nslookup -type=a name.example 10.99.0.1 | tail -n 2 | grep -o '192.0.2.*'; echo listening; nc -l -p 7001
                    """
                let first = try member(pod, script, rootfs)
                try first.output.wait(for: "10.99.0.2 said hello\nDATAGRAM\n192.0.2.7\nlistening\n")
                try peer.say("inbound", to: "10.99.0.2", port: 7001)
                #expect(try first.result().text.hasSuffix("listening\ninbound\n"))
                #expect(access(Net.path(network), F_OK) == 0)
                try pod.stopSandbox()
                // Nothing of the pod's is left in it, and nobody holds it.
                #expect(try net.traces(network).isEmpty)
            }
        }
    }
}
