import FoundationEssentials
import Glibc
import LinuxSystem
import OCISpec
import Testing

extension Containers {
    /// What pods and the host tell as metrics.
    @Suite struct MetricsTests {
        /// Debian's promtool; nil where it can't be had.
        static let promtool: String? = {
            do {
                let made = try Command("\(Lab.repository)/scripts/debian-program.sh", ["bookworm", "prometheus"])
                    .finish(within: .seconds(600))
                guard made.code == 0 else { throw LabError(made.errorText) }
                return "\(made.text.trimmed)/usr/bin/promtool"
            } catch {
                print("promtool reads no metrics: \(error)")
                return nil
            }
        }()

        private struct Pod: Decodable {
            var id: String
            var pid: Int32
            var metrics: String
        }

        private func martlet(_ scene: Scene, _ arguments: String...) throws -> String {
            try Command.run(Lab.martlet, ["--root", scene.root] + arguments)
        }

        private func pods(_ scene: Scene) throws -> [Pod] {
            try JSONDecoder().decode([Pod].self, from: Data(martlet(scene, "pod", "list", "--json").utf8))
        }

        private func metrics(_ scene: Scene) throws -> OpenMetrics {
            try OpenMetrics(martlet(scene, "metrics", "--format", "openmetrics"))
        }

        /// Has promtool look at what Prometheus would read.
        private func lint(_ text: String) throws {
            guard let promtool = Self.promtool else { return }
            let check = try Command(promtool, ["check", "metrics"], input: .pipe)
            _ = check.input?.write(text)
            check.input?.close()
            let outcome = try check.finish()
            #expect(outcome.code == 0 && outcome.text.isEmpty && outcome.errorText.isEmpty, "\(outcome.errorText)")
        }

        private static let busy = """
            trap 'exit 3' TERM
            for i in 1 2 3 4 5 6 7 8; do head -c 65536 /dev/zero >/file; cat /file >/dev/null; done
            echo up; while :; do sleep 0.1; done
            """

        @Test func aRunningPodIsMeasured() throws {
            try Scene.play { scene in
                let id = scene.newID()
                let run = try scene.start(
                    bundle: scene.bundle(script: Self.busy) { spec in
                        var resources = Linux.Resources()
                        resources.memory = Linux.Resources.Memory()
                        resources.memory?.limit = 64 << 20
                        spec.linux?.resources = resources
                        spec.root?.readonly = false
                    }, id: id)
                try run.output?.wait(for: "up\n")
                // The first heartbeats.
                sleep(2)
                try lint(martlet(scene, "metrics"))
                let first = try metrics(scene)
                let pod = ["pod": id]
                func value(_ name: String, _ labels: [String: String] = [:]) -> Double {
                    first.value(name, labels.merging(pod) { $1 }) ?? -1
                }
                let driver = Lab.driver == .kvm ? ["driver": "kvm"] : ["driver": "qemu"]
                #expect(value("martlet_pod_info", driver) == 1)
                #expect(first.value("martlet_pods", ["state": "running"]) == 1)
                #expect(first.value("martlet_pods", ["state": "dead"]) == 0)
                #expect(value("martlet_pod_containers", ["state": "running"]) == 1)
                #expect(abs(value("martlet_pod_start_time_seconds") - Double(time(nil))) < 600)
                for phase in ["machine_spawned", "agent_connected", "container_created", "container_started"] {
                    #expect(value("martlet_start_phase_seconds_count", ["phase": phase]) == 1, "\(phase)")
                    #expect(value("martlet_start_phase_seconds_sum", ["phase": phase]) > 0, "\(phase)")
                }
                #expect(value("martlet_agent_heartbeat_seconds_count") > 0)
                #expect(value("martlet_container_restarts_total") == 0)
                let machine = Lab.driver == .kvm ? "vmm" : "qemu"
                for process in ["server", machine, "files", "container"] {
                    let label = ["process": process]
                    #expect(value("martlet_host_processes", label) == 1, "\(process)")
                    #expect(value("martlet_host_process_threads", label) >= 1, "\(process)")
                    let resident = value("martlet_host_process_resident_memory_bytes", label)
                    let proportional = value("martlet_host_process_proportional_memory_bytes", label)
                    #expect(resident > 0 && proportional > 0 && proportional <= resident + 1e6, "\(process)")
                }
                #expect(value("martlet_host_process_cpu_seconds_total", ["process": machine, "mode": "user"]) > 0)
                #expect(value("martlet_guest_memory_bytes") >= 67_108_864)
                #expect(value("martlet_guest_vcpus") >= 1)
                let available = value("martlet_guest_memory_available_bytes")
                #expect(available > 0 && available < value("martlet_guest_memory_bytes"))
                for resource in ["cpu", "memory", "io"] {
                    let labels = ["resource": resource, "kind": "some"]
                    #expect(value("martlet_guest_pressure_seconds_total", labels) >= 0, "\(resource)")
                }
                let container = ["container": id]
                let memory = value("martlet_container_memory_usage_bytes", container)
                #expect(memory > 0 && memory <= 67_108_864)
                #expect(value("martlet_container_memory_limit_bytes", container) == 67_108_864)
                #expect((1...2).contains(value("martlet_container_processes", container)))
                // A file server has answered what the container did: eight files of 64 KiB.
                #expect(value("martlet_file_operation_seconds_count", ["operation": "write"]) >= 8)
                #expect(value("martlet_file_operation_seconds_sum", ["operation": "write"]) > 0)
                #expect(value("martlet_queue_chains_total", ["device": "files", "queue": "1"]) > 20)
                let sent = ["device": "files", "queue": "1", "direction": "read"]
                #expect(value("martlet_queue_bytes_total", sent) >= 8 * 65536)
                #expect(value("martlet_queue_interrupts_total", ["device": "vsock", "queue": "0"]) > 0)
                if Lab.driver == .kvm {
                    #expect(value("martlet_vcpu_exits_total") > 1000)
                    #expect(value("martlet_vcpu_reason_exits_total", ["reason": "register"]) > 0)
                }
                #expect(value("martlet_vsock_connections") >= 2)
                #expect(value("martlet_vsock_bytes_total", ["direction": "transmit"]) > 3)
                // What grows goes on to grow.
                let second = try metrics(scene)
                for (sample, value) in first.values where sample.name.hasSuffix("_total") {
                    #expect((second.values[sample] ?? -1) >= value, "\(sample)")
                }
                run.child.signal(SIGTERM)
                #expect(try run.finish().code == 3)
                let after = try metrics(scene)
                #expect(after.values.keys.allSatisfy { $0.labels["pod"] == nil }, "the pod's series end with it")
                let ends = first.values.filter { $0.key.name == "martlet_pod_ends_total" }
                #expect(ends.count == 6)
                let off = ["cause": "powered_off"]
                let before = first.value("martlet_pod_ends_total", off) ?? -1
                #expect((after.value("martlet_pod_ends_total", off) ?? -1) > before)
            }
        }

        @Test(.enabled(if: Lab.program("curl") != nil, "no curl in PATH")) func aPodsSocketSpeaksHTTP() throws {
            try Scene.play { scene in
                let container = try CommandLineContainer(scene)
                try container.create(bundle: scene.bundle(script: Self.busy))
                try container.succeed("start", container.id)
                let pod = try #require(try pods(scene).first)
                func curl(_ arguments: String...) throws -> Outcome {
                    try Command("curl", ["-sS", "--max-time", "20", "--unix-socket", pod.metrics] + arguments).finish()
                }
                let plain = try curl("-i", "http://localhost/metrics")
                #expect(plain.text.contains("HTTP/1.1 200 OK\r\n"))
                #expect(plain.text.contains("Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"))
                try lint(try curl("http://localhost/metrics").text)
                let open = try curl("-H", "Accept: application/openmetrics-text; version=1.0.0", "http://x/metrics")
                #expect(try OpenMetrics(open.text).value("martlet_pod_containers", ["state": "running"]) == 1)
                let head = try curl("-I", "http://localhost/metrics")
                #expect(head.text.hasPrefix("HTTP/1.1 200 OK\r\n"))
                #expect(try curl("-w", "%{http_code}", "http://localhost/").text.hasSuffix("/metrics\n404"))
                #expect(try curl("-w", "%{http_code}", "-d", "x", "http://localhost/metrics").text.hasSuffix("405"))
                // Two requests on one connection.
                let twice = try curl("-v", "http://localhost/metrics", "http://localhost/metrics")
                #expect(twice.errorText.contains("Re-using existing connection"), "\(twice.errorText)")
                var facts = stat()
                #expect(stat(pod.metrics, &facts) == 0 && facts.st_mode & 0o777 == 0o600)

                // A server that dies takes its metrics with it; the host's others can be read.
                kill(pod.pid, SIGKILL)
                let end = ContinuousClock.now + .seconds(20)
                while try metrics(scene).value("martlet_pods", ["state": "dead"]) != 1, ContinuousClock.now < end {
                    usleep(50_000)
                }
                let dead = try metrics(scene)
                #expect(dead.value("martlet_pods", ["state": "dead"]) == 1)
                #expect(dead.values.keys.allSatisfy { $0.labels["pod"] == nil })
                try container.succeed("delete", "--force", container.id)
                #expect(access(pod.metrics, F_OK) != 0)
            }
        }

        /// `--listen` at a TCP port and at a Unix socket, with two pods.
        @Test(.enabled(if: Lab.program("curl") != nil, "no curl in PATH")) func theHostsPodsAreServed() throws {
            try Scene.play { scene in
                let first = try CommandLineContainer(scene)
                let containers = [first, CommandLineContainer(like: first)]
                for container in containers {
                    try container.create(bundle: scene.bundle(script: Self.busy))
                    try container.succeed("start", container.id)
                }
                let global = ["--root", scene.root, "metrics", "--listen"]
                let tcp = try Command(Lab.martlet, global + ["127.0.0.1:0"])
                let path = "\(scene.directory)/metrics.sock"
                let unix = try Command(Lab.martlet, global + ["unix:\(path)"])
                try tcp.output?.wait(for: "metrics are served at 127.0.0.1:")
                try unix.output?.wait(for: "metrics are served at unix:")
                let word = tcp.output?.text.split(separator: "127.0.0.1:").last.map { $0.prefix { $0.isNumber } }
                let port = try #require(word)
                let accept = ["-H", "Accept: application/openmetrics-text"]
                let text = try Command.run("curl", ["-sS"] + accept + ["http://127.0.0.1:\(port)/metrics"])
                let metrics = try OpenMetrics(text)
                #expect(metrics.value("martlet_pods", ["state": "running"]) == 2)
                for container in containers {
                    #expect(metrics.value("martlet_pod_containers", ["pod": container.id, "state": "running"]) == 1)
                }
                let other = try Command.run("curl", ["-sS", "--unix-socket", path, "http://localhost/metrics"])
                try lint(other)
                // A socket in use, and one whose server was killed.
                let taken = try Command(Lab.martlet, global + ["unix:\(path)"]).finish()
                #expect(taken.code == 1 && taken.errorText.contains("--listen: bind"), "\(taken.errorText)")
                unix.child.signal(SIGKILL)
                _ = try unix.finish()
                let again = try Command(Lab.martlet, global + ["unix:\(path)"])
                try again.output?.wait(for: "metrics are served at unix:")
                for server in [tcp, again] {
                    server.child.signal(SIGTERM)
                    #expect(try server.finish().code == 0)
                }
                #expect(access(path, F_OK) != 0)
                for container in containers { try container.succeed("delete", "--force", container.id) }
            }
        }

        @Test(arguments: [
            (["--listen", "nowhere"], "'nowhere'"), (["--listen", "::1:90"], "'::1:90'"),
            (["--listen", "127.0.0.1:70000"], "'127.0.0.1:70000'"), (["--format", "xml"], "'xml'"),
            (["--listen", "127.0.0.1:1", "--format", "openmetrics"], "--format: has no effect with --listen"),
            (["--listen", "203.0.113.1:9100"], "--listen: "),
        ])
        func badArgumentsAreNamed(_ arguments: [String], _ message: String) throws {
            try Scene.play { scene in
                let outcome = try Command(Lab.martlet, ["--root", scene.root, "metrics"] + arguments).finish()
                #expect(outcome.code == 1 && outcome.errorText.contains(message), "\(outcome.errorText)")
            }
        }

        /// Frames are counted as the guest sees them.
        @Test func framesAreCounted() throws {
            try Scene.play { scene in
                let net = try Net(scene)
                do {
                    let pod = try net.pod()
                    try net.connect(pod, number: 2)
                    let bundle = try NetworkTests().bundle(
                        scene, in: pod, "ping -c 5 -i 0.2 -s 1000 10.99.0.1 >/dev/null; echo up; sleep 1000")
                    let run = try scene.start(bundle: bundle)
                    try run.output?.wait(for: "up\n")
                    let metrics = try metrics(scene)
                    for direction in ["receive", "transmit"] {
                        let labels = ["interface": "eth0", "direction": direction]
                        #expect((metrics.value("martlet_network_bytes_total", labels) ?? 0) > 5000)
                        #expect((metrics.value("martlet_network_packets_total", labels) ?? 0) >= 5)
                        #expect((metrics.value("martlet_network_drops_total", labels) ?? -1) >= 0)
                    }
                    run.child.signal(SIGKILL)
                    _ = try run.finish()
                    try net.remove()
                } catch {
                    try? net.remove()
                    throw error
                }
            }
        }
    }
}
