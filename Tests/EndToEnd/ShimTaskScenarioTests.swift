import Glibc
import LinuxSystem
import OCISpec
import TTRPC
internal import TaskAPI
import Testing

extension Containers {
    /// What containerd's suite for shims (github.com/containerd/shimtest) does with the Task service, without containerd. docs/shimtest.md
    /// has the list.
    @MainActor @Suite(.enabled(if: ShimPod.obstacle == nil, "\(ShimPod.obstacle ?? "")"))
    struct ShimTaskScenarioTests {
        static let burst = 8 << 20

        /// Each containerd gets an answer that it reads, and a shim without a pod ends when it is asked to.
        @Test(arguments: ShimBootstrap.allCases) func eachContainerdFindsItsShim(_ bootstrap: ShimBootstrap) throws {
            try Scene.play { scene in
                let bundle = try ShimPod.bundle(scene, script: "true")
                let pod = try ShimPod(scene, bundle: bundle, bootstrap: bootstrap)
                defer { pod.end() }
                let id = pod.id
                let pids = try ["v2", "v3"].map { version in
                    let answer: TaskConnectResponse = try pod.ask {
                        let request = TaskConnectRequest.with { $0.id = id }
                        return try await $0.client.call("containerd.task.\(version).Task", "Connect", request)
                    }
                    return Int32(answer.shimPid)
                }
                let server = try #require(pids.first)
                #expect(pids == [server, server])
                #expect(Leftovers.read("/proc/\(server)/cmdline")?.contains("\0-id\0\(id)\0") == true)
                #expect(try pod.refusal { try await $0.state(.with { $0.id = id }) }?.code == .notFound)
                try pod.shutdown()
                #expect(hasEnded(server))
                #expect(Leftovers.list("\(scene.directory)/pods/containerd-test").isEmpty)
            }
        }

        private func hasEnded(_ pid: Int32) -> Bool {
            let end = ContinuousClock.now + .seconds(10) * Lab.patience
            while ContinuousClock.now < end {
                guard let text = Leftovers.read("/proc/\(pid)/stat") else { return true }
                if text.contains(") Z ") { return true }
                usleep(20_000)
            }
            return false
        }

        @Test func aTaskLivesAndEachStepIsTold() throws {
            try ShimPod.play(script: "echo up; sleep 1000") { pod, scene, bundle in
                let first = try pod.createProcess(pod.id, bundle: bundle, try scene.busybox())
                let server = try pod.process("server")
                var state = try pod.state(of: pod.id)
                #expect(state.status == .created && state.pid > 0 && state.bundle == bundle)
                #expect(kill(Int32(state.pid), 0) == 0)
                try first.start()
                state = try pod.state(of: pod.id)
                #expect(state.status == .running && state.stdout == first.fifos.path("stdout"))
                try first.output.wait(for: "up\n")
                #expect(try pod.shell("exit 7", in: pod.id) == ShimResult(code: 7, text: ""))
                // It serves a container: nothing happens.
                try pod.shutdown()
                #expect(try pod.state(of: pod.id).status == .running)

                #expect(try first.signal(SIGKILL, all: true) == nil)
                #expect(try first.end() == 137)
                // A second kill, one of something that does not exist, and anything after the deletion.
                #expect(try first.signal(SIGKILL) == .notFound)
                state = try pod.state(of: pod.id)
                #expect(state.status == .stopped && state.exitStatus == 137 && state.exitedAt.seconds > 0)
                #expect(try first.delete() == 137)
                #expect(try first.signal(SIGKILL) == .notFound)
                let id = pod.id
                #expect(try pod.refusal { try await $0.state(.with { $0.id = id }) }?.code == .notFound)
                #expect(try pod.refusal { try await $0.wait(.with { $0.id = id }) }?.code == .notFound)
                #expect(try pod.refusal { try await $0.delete(.with { $0.id = id }) }?.code == .notFound)
                try pod.events.wait(for: "/tasks/delete")
                try check(pod.events.envelopes, of: pod.id)
                try pod.shutdown()
                #expect(hasEnded(server))
            }
        }

        private func check(_ envelopes: [EventEnvelope], of id: String) throws {
            #expect(
                envelopes.map(\.topic) == [
                    "/tasks/create", "/tasks/start", "/tasks/exec-added", "/tasks/exec-started", "/tasks/exit",
                    "/tasks/exit", "/tasks/delete",
                ])
            #expect(envelopes.allSatisfy { $0.namespace == ShimPod.namespace && $0.timestamp.seconds > 0 })
            let exits = try envelopes.filter { $0.topic == "/tasks/exit" }
                .map { try EventTaskExit(serializedBytes: $0.event.value) }
            #expect(exits.map(\.containerID) == [id, id] && exits.last?.id == id && exits.first?.id != id)
            #expect(exits.map(\.exitStatus) == [7, 137])
        }

        // MARK: A running task

        @Test func aRunningTaskIsAskedForAllSorts() throws {
            try ShimPod.play { pod, scene, bundle in
                let first = try pod.createProcess(pod.id, bundle: bundle, try scene.busybox())
                try first.start()
                try execsEndAsTheyShould(pod)
                try inputIsWholeAndEndsWhenAsked(pod)
                try outputIsWholeWheneverTheProcessEnds(pod)
                try execsThatFailAndThatAreSilent(pod, scene)
                try aPausedTaskStandsStill(pod)
                try theClockIsTheHosts(pod)
                try statisticsAreTheContainers(pod)
                #expect(try pod.state(of: pod.id).status == .running)
                try pod.remove(pod.id)
            }
        }

        private func execsEndAsTheyShould(_ pod: ShimPod) throws {
            #expect(try pod.shell("echo execworks", in: pod.id) == ShimResult(code: 0, text: "execworks\n"))
            for code in [0, 1, 2, 42, 127, 255] as [UInt32] {
                #expect(try pod.shell("exit \(code)", in: pod.id).code == code)
            }
            for (signal, name) in [
                (SIGTERM, "SIGTERM"), (SIGINT, "SIGINT"), (SIGKILL, "SIGKILL"), (SIGUSR1, "SIGUSR1"),
            ] {
                let sleeper = try pod.exec(["sleep", "1000"], in: pod.id)
                #expect(try sleeper.signal(signal) == nil)
                #expect(try sleeper.result().code == UInt32(128 + signal), "\(name)")
            }
            let sleeper = try pod.exec(["sleep", "1000"], in: pod.id)
            #expect(try sleeper.signal(SIGKILL) == nil)
            #expect(try sleeper.end() == 137)
            #expect(try sleeper.signal(SIGKILL) == .notFound)
            try sleeper.delete()
            #expect(try sleeper.signal(SIGKILL) == .notFound)
        }

        private func inputIsWholeAndEndsWhenAsked(_ pod: ShimPod) throws {
            let cat = try pod.exec(["cat"], in: pod.id, hasInput: true)
            let text = String(decoding: pattern(20 << 20), as: UTF8.self)
            let writer = try cat.fifos.writer()
            // It blocks until somebody reads.
            try startThread("feed") {
                writer.write(text)
                writer.close()
            }
            let end = ContinuousClock.now + .seconds(120) * Lab.patience
            while cat.output.current.count < text.utf8.count, ContinuousClock.now < end { usleep(20_000) }
            // The client is gone, and the input has not ended. Another one comes.
            #expect(try pod.shell("pidof cat", in: pod.id).code == 0)
            let other = try cat.fifos.writer()
            other.write("second\n")
            other.close()
            try cat.output.wait(for: "second\n")
            try cat.closeInput()
            let (code, output) = try cat.finish()
            #expect(code == 0 && output.count == text.utf8.count + 7 && output == Array((text + "second\n").utf8))
        }

        /// Letters that repeat nowhere near.
        private func pattern(_ count: Int) -> [UInt8] {
            var word: UInt64 = 1
            return (0..<count).map { _ in
                word = word &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                return UInt8(ascii: "a") + UInt8(truncatingIfNeeded: (word >> 59) % 26)
            }
        }

        private func outputIsWholeWheneverTheProcessEnds(_ pod: ShimPod) throws {
            let ticks = "i=0; while [ $((i += 1)) -le 50 ]; do echo tick $i; done; exit 7"
            let expected = (1...50).map { "tick \($0)\n" }.joined()
            #expect(try pod.shell(ticks, in: pod.id) == ShimResult(code: 7, text: expected))
            let burst = try pod.exec(["sh", "-c", "head -c \(Self.burst) /dev/zero; exit 3"], in: pod.id)
            // The shim serves a container, and does not end meanwhile.
            try pod.shutdown()
            let (code, output) = try burst.finish()
            #expect(code == 3 && output.count == Self.burst)
        }

        private func execsThatFailAndThatAreSilent(_ pod: ShimPod, _ scene: Scene) throws {
            let silent = try pod.add(["sh", "-c", "echo nobody; cat"], in: pod.id, streams: .none)
            let id = pod.id
            let exec = TaskStartRequest.with { ($0.id, $0.execID) = (id, silent) }
            try pod.ask { try await $0.start(exec, timeout: ShimPod.timeout) }
            let code = try pod.ask {
                try await $0.wait(.with { ($0.id, $0.execID) = (id, silent) }, timeout: ShimPod.timeout).exitStatus
            }
            #expect(code == 0)
            try pod.ask { try await $0.delete(.with { ($0.id, $0.execID) = (id, silent) }, timeout: ShimPod.timeout) }

            let missing = try pod.process(["/bin/this-is-missing"], in: pod.id)
            let name = missing.exec
            let error = try pod.refusal {
                try await $0.start(.with { ($0.id, $0.execID) = (id, name) }, timeout: ShimPod.timeout)
            }
            #expect(error?.message.contains("/bin/this-is-missing") == true, "\(error.map { "\($0)" } ?? "it starts")")
            let start = ContinuousClock.now
            try missing.delete()
            #expect(ContinuousClock.now - start < .seconds(5) * Lab.patience)
            #expect(try pod.shell("echo after", in: pod.id).text == "after\n")
        }

        private func aPausedTaskStandsStill(_ pod: ShimPod) throws {
            let ticker = try pod.exec(["sh", "-c", "while :; do echo tick; sleep 0.05; done"], in: pod.id)
            try ticker.output.wait(for: "tick\n")
            let id = pod.id
            try pod.ask { try await $0.pause(.with { $0.id = id }, timeout: ShimPod.timeout) }
            #expect(try pod.state(of: id).status == .paused)
            // What was on its way has come.
            usleep(500_000)
            let seen = ticker.output.current.count
            usleep(700_000)
            #expect(ticker.output.current.count == seen)
            let again = try pod.refusal { try await $0.pause(.with { $0.id = id }, timeout: ShimPod.timeout) }
            #expect(again?.code == .failedPrecondition)
            try pod.ask { try await $0.resume(.with { $0.id = id }, timeout: ShimPod.timeout) }
            let end = ContinuousClock.now + .seconds(30) * Lab.patience
            while ticker.output.current.count == seen, ContinuousClock.now < end { usleep(20_000) }
            #expect(ticker.output.current.count > seen)
            #expect(try ticker.signal(SIGKILL) == nil)
            #expect(try ticker.result().code == 137)
        }

        private func theClockIsTheHosts(_ pod: ShimPod) throws {
            let before = time(nil)
            let guest = Int(try pod.shell("date +%s", in: pod.id).text.trimmed)
            let after = time(nil)
            #expect((before - 2...after + 2).contains(guest ?? 0), "\(guest ?? 0), not \(before) to \(after)")
        }

        private func statisticsAreTheContainers(_ pod: ShimPod) throws {
            let id = pod.id
            let answer = try pod.ask { try await $0.stats(.with { $0.id = id }, timeout: ShimPod.timeout) }
            #expect(answer.stats.typeURL == MetricsMetrics.protoMessageName)
            let metrics = try MetricsMetrics(serializedBytes: answer.stats.value)
            #expect(metrics.pids.current >= 1 && metrics.cpu.usageUsec > 0 && metrics.memory.usage > 0)
        }

        // MARK: Whole lives

        /// The pod goes with its first container, whose output is whole all the same. A shutdown that comes too early ends nothing.
        @Test func aBurstOfTheFirstProcessIsWhole() throws {
            try ShimPod.play(script: "head -c \(Self.burst) /dev/zero; exit 3") { pod, scene, bundle in
                let first = try pod.createProcess(pod.id, bundle: bundle, try scene.busybox())
                try first.start()
                try pod.shutdown()
                let (code, output) = try first.finish()
                #expect(code == 3 && output.count == Self.burst)
                try pod.shutdown()
            }
        }

        /// containerd deletes the bundle afterwards: whatever the shim still had would stay for ever.
        @Test func aShimThatIsGivenUpGoesWithItsLastContainer() throws {
            try ShimPod.play { pod, scene, bundle in
                let rootfs = try scene.busybox()
                try pod.run(pod.id, bundle: bundle, rootfs)
                let server = try pod.process("server")
                let (member, id) = ("\(pod.id)-b", pod.id)
                let joined = try ShimPod.bundle(scene, script: "sleep 1000", joins: pod.id)
                try pod.run(member, bundle: joined, rootfs)
                #expect(try pod.deleteShim(of: member, bundle: joined).exitStatus == 137)
                #expect(try pod.refusal { try await $0.state(.with { $0.id = member }) }?.code == .notFound)
                // It has dealt with the container: nothing is left to do.
                #expect(try pod.deleteShim(of: member, bundle: joined).pid == 0)
                #expect(try pod.state(of: id).status == .running)
                let pid = try pod.state(of: id).pid
                let answer = try pod.deleteShim(of: id, bundle: bundle)
                #expect(answer.exitStatus == 137 && answer.pid == pid)
                #expect(hasEnded(server))
                #expect(Leftovers.list("\(scene.directory)/pods/containerd-test").isEmpty)
            }
        }

        @Test func aMissingProgramFailsTheContainerAndItsIDIsFree() throws {
            try Scene.play { scene in
                let rootfs = try scene.busybox()
                let bundle = try ShimPod.bundle(scene, script: "") { $0.process?.args = ["/bin/this-is-missing"] }
                let pod = try ShimPod(scene, bundle: bundle)
                defer { pod.end() }
                let id = pod.id
                let error = try pod.refusal {
                    let create = TaskCreateTaskRequest.with {
                        ($0.id, $0.bundle) = (id, bundle)
                        $0.rootfs = rootfs.map { mount in
                            .with { ($0.type, $0.source, $0.options) = (mount.type, mount.source, mount.options) }
                        }
                    }
                    _ = try await $0.create(create, timeout: ShimPod.timeout)
                    _ = try await $0.start(.with { $0.id = id }, timeout: ShimPod.timeout)
                }
                #expect(
                    error?.message.contains("/bin/this-is-missing") == true, "\(error.map { "\($0)" } ?? "it starts")")
                // There where Create has succeeded.
                _ = try pod.refusal { try await $0.delete(.with { $0.id = id }, timeout: ShimPod.timeout) }
                try pod.shutdown()
            }
        }

        /// A file of 64 MiB, once in a layer and once in a directory of the host.
        @Test func aLargeFileIsReadFromALayerAndFromTheHost() throws {
            try ShimPod.play { pod, scene, _ in
                let layer = try scene.layer("large", "mkdir data; head -c 64M /dev/urandom >data/file")
                let sum = try Command.shell("md5sum <\(scene.directory)/large/data/file")
                let script = "md5sum </data/file; md5sum </host/file"
                let bundle = try ShimPod.bundle(scene, script: script) { spec in
                    let source = "\(scene.directory)/large/data"
                    spec.mounts.append(
                        Mount(destination: "/host", type: "bind", source: source, options: ["rbind", "ro"]))
                }
                let (mounts, _) = try scene.stack([try scene.busyboxLayer(), layer])
                let (code, output, errors) = try pod.outcome(pod.id, bundle: bundle, mounts)
                #expect(code == 0 && output == sum + sum, "\(output)\(errors)")
            }
        }

        /// The bundle that shimtest writes, which names a mount namespace alone, with the mounts that it gives a shim of virtual machines, and
        /// runc's options.
        @Test func shimtestsOwnBundleRuns() throws {
            let settings = "spec.host_namespaces = \"warn\""
            try Scene.play { scene in
                let bundle = try scene.makeDirectory("bundle")
                try scene.write(
                    "bundle/config.json",
                    """
                    {"ociVersion":"1.2.0","process":{"user":{"uid":0,"gid":0},"args":["/bin/sh","-c","ls /data; exit 7"],
                    "env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"cwd":"/"},
                    "root":{"path":"rootfs"},"mounts":[{"destination":"/proc","type":"proc","source":"proc"},
                    {"destination":"/dev","type":"tmpfs","source":"tmpfs"}],"linux":{"namespaces":[{"type":"mount"}]}}
                    """)
                let image = "\(scene.directory)/scratch.ext4"
                try Command.shell("mkdir \(bundle)/rootfs; truncate -s 64M \(image); mkfs.ext4 -q -F \(image)")
                let layers = [try scene.busyboxLayer(), try scene.layer("big", "mkdir data; echo probe >data/bigfile")]
                var mounts = [ShimPod.RootMount(type: "ext4", source: image, options: ["rw", "loop"])]
                mounts += layers.map { .init(type: "erofs", source: $0, options: ["ro", "loop"]) }
                mounts.append(
                    .init(
                        type: "format/mkdir/overlay", source: "overlay",
                        options: [
                            "X-containerd.mkdir.path={{ mount 0 }}/upper:0755",
                            "X-containerd.mkdir.path={{ mount 0 }}/work:0755", "workdir={{ mount 0 }}/work",
                            "upperdir={{ mount 0 }}/upper", "lowerdir={{ mount 1 }}:{{ mount 2 }}",
                        ]))
                let pod = try ShimPod(scene, bundle: bundle, settings: settings)
                defer { pod.end() }
                let fifos = try ShimFifos(in: "\(bundle)/streams", hasInput: false)
                try pod.create(
                    pod.id, bundle: bundle, mounts, streams: .fifos(fifos), options: "containerd.runc.v1.Options")
                let first = ShimProcess(pod: pod, container: pod.id, exec: "", fifos: fifos)
                try first.start()
                #expect(try first.result() == ShimResult(code: 7, text: "bigfile\n"))
                try pod.shutdown()
            }
        }

        /// As shimtest's own network has it: the interface comes into the namespace of the pid that Create answers.
        @Test func aNetworkThatComesBeforeTheStartIsTheTasks() throws {
            let script = """
                echo hello | nc 10.99.0.1 9000; nc -l -p 9001 >/tmp/heard &
                until echo own | nc 127.0.0.1 9001; do sleep 0.1; done 2>/dev/null; wait; cat /tmp/heard; nc -l -p 9002
                """
            try ShimPod.play(script: script) { pod, scene, bundle in
                let net = try Net(scene)
                defer { try? net.remove() }
                let peer = try NetworkPeer(net, scene)
                defer { peer.end() }
                let fifos = try ShimFifos(in: "\(bundle)/streams", hasInput: false)
                let pid = try pod.create(pod.id, bundle: bundle, try scene.busybox(), streams: .fifos(fifos))
                let first = ShimProcess(pod: pod, container: pod.id, exec: "", fifos: fifos)
                try net.connect(process: pid, number: 2)
                try first.start()
                try first.output.wait(for: "10.99.0.2 said hello\nown\n")
                try peer.say("inbound", to: "10.99.0.2", port: 9002)
                let result = try first.result()
                #expect(result == ShimResult(code: 0, text: "10.99.0.2 said hello\nown\ninbound\n"))
                try pod.shutdown()
            }
        }
    }
}
