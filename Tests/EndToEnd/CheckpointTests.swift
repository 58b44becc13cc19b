import Glibc
import LinuxSystem
import OCISpec
import Testing

extension Containers {
    /// Containers that are written to a directory with their machine, go on from it, and go on apart. The built-in VMM alone can.
    @Suite struct CheckpointTests {
        private static let needsKVM: Comment =
            "the driver under test is not the built-in VMM, which alone saves machines"

        private func succeed(_ container: CommandLineContainer, _ arguments: [String]) throws {
            let outcome = try container.begin(arguments).finish(within: .seconds(120))
            try #require(outcome.code == 0, "\(arguments): \(outcome.errorText)")
        }

        /// `restore -d`: the container writes on into its file.
        private func restore(
            _ container: CommandLineContainer, _ bundle: String, from image: String
        ) throws -> Outcome {
            try detached(container, ["restore", "-d", "--image-path", image, "--bundle", bundle, container.id])
        }

        /// A command whose container outlives it, and writes on into its file.
        private func detached(_ container: CommandLineContainer, _ arguments: [String]) throws -> Outcome {
            let file = try SharedDescriptor(
                OwnedDescriptor.open(container.output, O_WRONLY | O_CREAT | O_APPEND, mode: 0o644))
            let errors = "\(container.scene.directory)/errors"
            let log = try SharedDescriptor(OwnedDescriptor.open(errors, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o644))
            let command = try container.begin(arguments, output: .descriptor(file), errors: .descriptor(log))
            var outcome = try command.finish(within: .seconds(120))
            outcome.errors = Array((Leftovers.read(errors) ?? "").utf8)
            return outcome
        }

        /// The numbers 1, 2, 3 … as far as they go.
        private func count(_ text: String, sourceLocation: SourceLocation = #_sourceLocation) -> Int {
            let numbers = text.split(separator: "\n").map { Int($0) ?? -1 }
            #expect(numbers == Array(1...max(1, numbers.count)), "\(numbers)", sourceLocation: sourceLocation)
            return numbers.count
        }

        private func data(_ directory: String, _ spec: inout Spec) {
            spec.mounts.append(Mount(destination: "/data", type: "bind", source: directory, options: ["rbind", "rw"]))
        }

        /// Waits until a file has more lines than that.
        private func wait(
            _ path: String, lines: Int, sourceLocation: SourceLocation = #_sourceLocation
        ) {
            let count = { (Leftovers.read(path) ?? "").split(separator: "\n").count }
            let end = ContinuousClock.now + .seconds(20) * Lab.patience
            while count() <= lines, ContinuousClock.now < end { usleep(20_000) }
            #expect(count() > lines, "\(path)", sourceLocation: sourceLocation)
        }

        /// A counter, an open connection, a file half written on a share, a timer, and the clock.
        @Test(.enabled(if: Lab.driver == .kvm, needsKVM))
        func aRunningContainerGoesOnFromACheckpoint() throws {
            try Scene.play { scene in
                let net = try Net(scene)
                do { try goOn(scene, net) } catch {
                    try? net.remove()
                    throw error
                }
                try net.remove()
            }
        }

        private func goOn(_ scene: Scene, _ net: Net) throws {
            let pod = try net.pod()
            try net.connect(pod, number: 2)
            let directory = try scene.makeDirectory("data")
            let echo = try net.start(
                net.host,
                "exec python3 -c 'import socket; s = socket.create_server((\"10.99.0.1\", 7000)); c, _ = s.accept()\n"
                    + "while True:\n d = c.recv(4096)\n if not d: break\n c.sendall(d)'")
            defer { echo.child.signal(SIGKILL) }
            let pages = try net.start(net.host, "exec busybox httpd -f -p 7001 -h \(directory)")
            defer { pages.child.signal(SIGKILL) }
            let script = """
                exec 3>/data/half; printf first >&3
                ( i=0; while ! test -e /data/stop; do i=$((i+1)); echo $i; sleep 0.1; done ) | nc 10.99.0.1 7000 >/data/echo &
                ( sleep 6; echo fired >/data/timer ) &
                n=0; while ! test -e /data/stop; do n=$((n+1)); echo $n; sleep 0.1; done
                printf second >&3; date +%s >/data/now; wait
                """
            let bundle = try scene.bundle(script: script) { spec in
                for index in spec.linux?.namespaces.indices ?? 0..<0 {
                    if spec.linux?.namespaces[index].kind == .network {
                        spec.linux?.namespaces[index].path = Net.path(pod)
                    }
                }
                data(directory, &spec)
            }
            let container = try CommandLineContainer(scene)
            let image = "\(scene.directory)/image"
            try container.create(bundle: bundle)
            try container.succeed("start", container.id)
            wait("\(directory)/echo", lines: 5)
            wait(container.output, lines: 5)
            try succeed(container, ["checkpoint", "--image-path", image, container.id])
            #expect(try container.state() == nil)
            #expect(try net.traces(pod).isEmpty)
            #expect(Leftovers.list(image).sorted() == ["checkpoint.json", "files", "memory", "state"])
            let counted = (count(container.text), count(Leftovers.read("\(directory)/echo") ?? ""))
            // The guest's clock must not stand where it stood.
            sleep(4)
            let restored = try restore(container, bundle, from: image)
            try #require(restored.code == 0, "\(restored.errorText)")
            #expect(try container.state()?.status == "running")
            wait(container.output, lines: counted.0 + 5)
            wait("\(directory)/echo", lines: counted.1 + 5)
            #expect(Leftovers.read("\(directory)/half") == "first")
            wait("\(directory)/timer", lines: 0)
            // A further process, and the network of a new connection.
            let page = try container.run("exec", container.id, "wget", "-q", "-O", "-", "http://10.99.0.1:7001/half")
            #expect(page.text == "first", "\(page.errorText)")
            try scene.write("\(directory)/stop", "")
            try container.wait(for: "stopped")
            #expect(Leftovers.read("\(directory)/half") == "firstsecond")
            let now = Int((Leftovers.read("\(directory)/now") ?? "").prefix { $0.isNumber }) ?? 0
            #expect(abs(now - time(nil)) <= 3 * Lab.patience, "the clock is wrong by \(now - time(nil)) s")
            #expect(count(container.text) > counted.0 && count(Leftovers.read("\(directory)/echo") ?? "") > counted.1)
            try container.succeed("delete", container.id)
        }

        /// Left running, twice; then once more from the first checkpoint, as another container.
        @Test(.enabled(if: Lab.driver == .kvm, needsKVM))
        func aContainerIsLeftRunning() throws {
            try Scene.play { scene in
                let container = try CommandLineContainer(scene)
                let bundle = try scene.bundle(
                    script: "n=0; while ! test -e /stop; do n=$((n+1)); echo $n; sleep 0.05; done"
                ) { $0.root?.readonly = false }
                let image = "\(scene.directory)/image"
                try container.create(bundle: bundle)
                try container.succeed("start", container.id)
                for number in 0..<3 {
                    wait(container.output, lines: 5 * (number + 1))
                    try succeed(
                        container, ["checkpoint", "--leave-running", "--image-path", "\(image)\(number)", container.id])
                    #expect(try container.state()?.status == "running")
                }
                let again = try container.run(
                    "checkpoint", "--leave-running", "--image-path", "\(image)0", container.id)
                #expect(again.code == 1 && again.errorText.contains("exists already"), "\(again.errorText)")
                let lines = container.text.split(separator: "\n").count
                wait(container.output, lines: lines + 5)
                _ = count(container.text)
                try container.succeed("delete", "--force", container.id)
                let other = CommandLineContainer(like: container)
                let restored = try restore(other, bundle, from: "\(image)0")
                try #require(restored.code == 0, "\(restored.errorText)")
                other.wait(forText: "\n40\n")
                let first = try #require(Int(other.text.split(separator: "\n").first ?? ""))
                #expect(first > 5 && first < lines)
                let exec = try other.run("exec", other.id, "touch", "/stop")
                #expect(exec.code == 0, "\(exec.errorText)")
                try other.wait(for: "stopped")
                try other.succeed("delete", other.id)
            }
        }

        /// Two counters that go on apart; what tells the two machines apart differs, and each has a root file system of its own.
        @Test(.enabled(if: Lab.driver == .kvm, needsKVM))
        func aForkGoesOnApart() throws {
            try Scene.play { scene in
                let container = try CommandLineContainer(scene)
                let bundle = try scene.bundle(
                    script: "n=0; while :; do n=$((n+1)); echo $n >>/count; sleep 0.05; done"
                ) {
                    $0.root?.readonly = false
                    $0.hostname = "first"
                }
                try container.create(bundle: bundle)
                try container.succeed("start", container.id)
                let counter = { (bundle: String) in "\(bundle)/rootfs/count" }
                let other = CommandLineContainer(like: container)
                let copy = "\(scene.directory)/copy"
                usleep(500_000)
                let forked = try detached(other, ["fork", "--bundle", copy, container.id, other.id])
                try #require(forked.code == 0, "\(forked.errorText)")
                let same = count(Leftovers.read(counter(copy)) ?? "")
                wait(counter(copy), lines: same + 5)
                _ = count(Leftovers.read(counter(copy)) ?? "")
                #expect(try container.state()?.status == "running" && other.state()?.status == "running")
                let identity = "head -c 64 /dev/urandom | md5sum; cat /proc/sys/kernel/random/uuid"
                let identities = try [container, other].map { try $0.succeed("exec", $0.id, "/bin/sh", "-c", identity) }
                #expect(identities[0].split(separator: "\n").count == 2)
                #expect(Set(identities.flatMap { $0.split(separator: "\n") }).count == 4, "\(identities)")
                #expect(try container.succeed("exec", container.id, "hostname") == "first\n")
                #expect(try other.succeed("exec", other.id, "hostname") == "\(other.id)\n")
                try container.succeed("exec", container.id, "touch", "/mine")
                let missing = try other.run("exec", other.id, "test", "-e", "/mine")
                #expect(missing.code == 1, "\(missing.errorText)")
                try container.succeed("delete", "--force", container.id)
                let before = (Leftovers.read(counter(copy)) ?? "").split(separator: "\n").count
                wait(counter(copy), lines: before + 5)
                try other.succeed("delete", "--force", other.id)
            }
        }

        /// What can't be saved or found again is named; the container goes on, and nothing is left.
        @Test(.enabled(if: Lab.driver == .kvm, needsKVM))
        func whatCantBeSavedIsNamed() throws {
            try Scene.play { scene in
                let container = try CommandLineContainer(scene)
                let directory = try scene.makeDirectory("data")
                let bundle = try scene.bundle(
                    script: "exec 3>/data/open; n=0; while :; do n=$((n+1)); echo $n; sleep 0.1; done"
                ) { data(directory, &$0) }
                let image = "\(scene.directory)/image"
                try container.create(bundle: bundle)
                let early = try container.run("checkpoint", "--image-path", image, container.id)
                #expect(early.code == 1 && early.errorText.contains("is created, not running"), "\(early.errorText)")
                try container.succeed("start", container.id)
                wait(container.output, lines: 3)

                let full = try scene.makeDirectory("full")
                try Command.shell("mount -t tmpfs -o size=4m full \(full)")
                let noRoom = try container.run("checkpoint", "--image-path", "\(full)/image", container.id)
                #expect(noRoom.code == 1 && noRoom.errorText.contains("No space left"), "\(noRoom.errorText)")
                #expect(Leftovers.list(full).isEmpty)
                umount2(full, Int32(MNT_DETACH))

                let exec = try container.begin(["exec", container.id, "sleep", "1000"])
                usleep(UInt32(500_000 * Lab.patience))
                let busy = try container.run("checkpoint", "--image-path", image, container.id)
                #expect(busy.code == 1 && busy.errorText.contains("while exec"), "\(busy.errorText)")
                exec.child.signal(SIGTERM)
                _ = try exec.finish(within: .seconds(20))

                let lines = container.text.split(separator: "\n").count
                wait(container.output, lines: lines + 3)
                _ = count(container.text)
                #expect(access(image, F_OK) != 0)
                // A file that is open, and has gone when the container is to go on.
                try succeed(container, ["checkpoint", "--image-path", image, container.id])
                try Command.shell("mv \(directory)/open \(directory)/elsewhere")
                let gone = try restore(container, bundle, from: image)
                #expect(gone.code == 1 && gone.errorText.contains("open"), "\(gone.errorText)")
                #expect(try container.state() == nil)
                try Command.shell("mv \(directory)/elsewhere \(directory)/open")
                let other = try scene.bundle(script: "true")
                let strange = try restore(container, other, from: image)
                #expect(strange.code == 1 && strange.errorText.contains("mounts"), "\(strange.errorText)")
                let none = try restore(container, bundle, from: "\(scene.directory)/none")
                #expect(none.code == 1 && none.errorText.contains("does not exist"), "\(none.errorText)")
                let restored = try restore(container, bundle, from: image)
                #expect(restored.code == 0, "\(restored.errorText)")
                try container.succeed("delete", "--force", container.id)
            }
        }

        /// The server is killed while a checkpoint is written, and while one is restored.
        @Test(.enabled(if: Lab.driver == .kvm, needsKVM))
        func aKilledServerLeavesNothing() throws {
            try Scene.play { scene in
                let container = try CommandLineContainer(scene)
                let bundle = try scene.bundle(script: "n=0; while :; do n=$((n+1)); echo $n; sleep 0.1; done")
                let image = "\(scene.directory)/image"
                try container.create(bundle: bundle)
                try container.succeed("start", container.id)
                try succeed(container, ["checkpoint", "--leave-running", "--image-path", image, container.id])
                let server = try Leftovers.process("server", in: "\(scene.root)/\(container.id)/state.json")
                let command = try container.begin(
                    ["checkpoint", "--leave-running", "--image-path", "\(image)-2", container.id])
                usleep(UInt32(150_000 * Lab.patience))
                kill(server, SIGKILL)
                #expect(try command.finish(within: .seconds(60)).code != 0)
                try container.succeed("delete", "--force", container.id)
                for delay in [0.1, 0.3, 0.6, 1.0] {
                    let command = try container.begin(
                        ["restore", "--image-path", image, "--bundle", bundle, container.id], output: .null)
                    usleep(UInt32(delay * 1e6) * UInt32(Lab.patience))
                    command.child.signal(SIGKILL)
                    _ = try command.finish(within: .seconds(30))
                    try container.succeed("delete", "--force", container.id)
                }
            }
        }

        @Test(.enabled(if: Lab.driver == .qemu, "QEMU alone refuses checkpoints"))
        func qemuRefusesCheckpoints() throws {
            try Scene.play { scene in
                let container = try CommandLineContainer(scene)
                let bundle = try scene.bundle(script: "echo in; sleep 1000")
                try container.create(bundle: bundle)
                try container.succeed("start", container.id)
                container.wait(forText: "in")
                let image = "\(scene.directory)/image"
                let refused = try container.run("checkpoint", "--image-path", image, container.id)
                #expect(
                    refused.code == 1 && refused.errorText.contains("a checkpoint with qemu"), "\(refused.errorText)")
                let fork = try container.run("fork", "--bundle", "\(scene.directory)/copy", container.id, "other")
                #expect(fork.code == 1 && fork.errorText.contains("a checkpoint with qemu"), "\(fork.errorText)")
                #expect(access(image, F_OK) != 0 && access("\(scene.directory)/copy", F_OK) != 0)
                #expect(try container.state()?.status == "running")
                try container.succeed("delete", "--force", container.id)
            }
        }

        /// A paused pod's vCPUs stand still, and go on for whatever is asked of the guest.
        @Test func aPausedPodUsesNoProcessor() throws {
            try Scene.play { scene in
                let container = try CommandLineContainer(scene)
                let bundle = try scene.bundle(script: "echo in; while :; do :; done")
                try container.create(bundle: bundle)
                try container.succeed("start", container.id)
                container.wait(forText: "in")
                let machine = try Leftovers.process(
                    Victim.machine.process, in: "\(scene.root)/\(container.id)/state.json")
                #expect(try usedTicks(machine, seconds: 1) > 20)
                try container.succeed("pause", container.id)
                #expect(try usedTicks(machine, seconds: 2) <= 4)
                #expect(try container.state()?.status == "paused")
                // Statistics are the guest's to tell.
                let events = try container.succeed("events", "--stats", container.id)
                #expect(events.contains("\"memory\""), "\(events)")
                #expect(try usedTicks(machine, seconds: 2) <= 4)
                try container.succeed("resume", container.id)
                #expect(try usedTicks(machine, seconds: 1) > 20)
                try container.succeed("pause", container.id)
                try container.succeed("kill", container.id, "KILL")
                try container.wait(for: "stopped")
                try container.succeed("delete", container.id)
            }
        }

        /// CPU time that a process takes, in hundredths of a second.
        private func usedTicks(_ pid: Int32, seconds: UInt32) throws -> Int {
            func ticks() throws -> Int {
                let fields = try readText("/proc/\(pid)/stat").split(separator: ")").last?.split(separator: " ") ?? []
                return (fields.count > 12 ? Int(fields[11]) ?? 0 : 0) + (fields.count > 12 ? Int(fields[12]) ?? 0 : 0)
            }
            let before = try ticks()
            sleep(seconds)
            return try ticks() - before
        }
    }
}
