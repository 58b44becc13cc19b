import Glibc
import LinuxSystem
import OCISpec
import Testing

extension Containers {
    /// Whole pods that are written to a directory, go on from it, and are copied. The built-in VMM alone can.
    @Suite struct PodCheckpointTests {
        private static let needsKVM: Comment =
            "the driver under test is not the built-in VMM, which alone saves machines"

        /// A pod of the command line with two containers, each of which counts into its output and over a connection to the other one.
        private struct Pair {
            let pod: String
            let first: CommandLineContainer
            let second: CommandLineContainer
            let bundles: [String]
            /// Both have it at /data.
            let data: String
            var both: [CommandLineContainer] { [first, second] }

            init(_ scene: Scene) throws {
                (pod, data) = ("\(scene.token)-pod", try scene.makeDirectory("pod-data"))
                first = try CommandLineContainer(scene)
                second = CommandLineContainer(like: first)
                let (group, data) = (pod, data)
                let edit: (inout Spec) -> Void = { spec in
                    spec.annotations["io.containerd.runc.v2.group"] = group
                    spec.root?.readonly = false
                    spec.hostname = "host"
                    spec.mounts.append(
                        Mount(destination: "/data", type: "bind", source: data, options: ["rbind", "rw"]))
                }
                let count = "n=0; while ! test -e /data/stop; do n=$((n+1)); echo $n; sleep 0.1; done"
                bundles = [
                    try scene.bundle(
                        script:
                            "( while ! test -e /data/stop; do sleep 0.1; done ) | nc -l -p 7000 >/data/received & \(count); wait",
                        edit: edit),
                    try scene.bundle(
                        script: "( \(count) ) | nc 127.0.0.1 7000 & \(count); wait", edit: edit),
                ]
                for (container, bundle) in zip(both, bundles) {
                    try container.create(bundle: bundle)
                    try container.succeed("start", container.id)
                    wait(container.output, lines: 1)
                }
            }

            /// The options of `pod restore` that name both bundles.
            var bundleOptions: [String] { zip(both, bundles).map { "--bundle=\($0.id)=\($1)" } }

            func delete() throws { for container in both { try container.succeed("delete", "--force", container.id) } }
        }

        /// Waits until a file has more lines than that.
        private static func wait(_ path: String, lines: Int, sourceLocation: SourceLocation = #_sourceLocation) {
            let count = { (Leftovers.read(path) ?? "").split(separator: "\n").count }
            let end = ContinuousClock.now + .seconds(20) * Lab.patience
            while count() <= lines, ContinuousClock.now < end { usleep(20_000) }
            #expect(count() > lines, "\(path)", sourceLocation: sourceLocation)
        }

        private static func lines(_ path: String) -> Int { (Leftovers.read(path) ?? "").split(separator: "\n").count }

        /// A command whose containers outlive it and write into a file.
        private func detached(
            _ container: CommandLineContainer, _ arguments: [String], into output: String
        ) throws -> Outcome {
            let file = try SharedDescriptor(
                OwnedDescriptor.open(output, O_WRONLY | O_CREAT | O_APPEND, mode: 0o644))
            let errors = "\(container.scene.directory)/errors"
            let log = try SharedDescriptor(OwnedDescriptor.open(errors, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o644))
            let command = try container.begin(arguments, output: .descriptor(file), errors: .descriptor(log))
            var outcome = try command.finish(within: .seconds(180))
            outcome.errors = Array((Leftovers.read(errors) ?? "").utf8)
            return outcome
        }

        private func succeed(_ container: CommandLineContainer, _ arguments: String...) throws {
            let outcome = try container.begin(arguments).finish(within: .seconds(120))
            try #require(outcome.code == 0, "\(arguments): \(outcome.errorText)")
        }

        /// Processes of two containers, the connection between them, and what one asks of the other.
        @Test(.enabled(if: Lab.driver == .kvm, needsKVM))
        func allContainersGoOn() throws {
            try Scene.play { scene in
                let pair = try Pair(scene)
                let (first, second) = (pair.first, pair.second)
                let (received, image) = ("\(pair.data)/received", "\(scene.directory)/image")
                Self.wait(received, lines: 3)
                let alone = try first.run("checkpoint", "--image-path", image, first.id)
                #expect(alone.code == 1 && alone.errorText.contains("without containers"), "\(alone.errorText)")
                #expect(alone.errorText.contains(second.id) && alone.errorText.contains("martlet pod checkpoint"))
                try succeed(first, "pod", "checkpoint", pair.pod, image)
                #expect(try first.state() == nil && second.state() == nil)
                #expect(Leftovers.list(image).sorted() == ["checkpoint.json", "files", "memory", "state"])
                let before = Self.lines(received)

                let one = try first.run("restore", "--image-path", image, "--bundle", pair.bundles[0], first.id)
                #expect(one.code == 1 && one.errorText.contains("martlet pod restore"), "\(one.errorText)")
                let output = "\(scene.directory)/restored"
                let restored = try detached(first, ["pod", "restore"] + pair.bundleOptions + [image], into: output)
                try #require(restored.code == 0, "\(restored.errorText)")
                for container in pair.both { #expect(try container.state()?.status == "running") }
                Self.wait(received, lines: before + 5)
                Self.wait(output, lines: 10)
                let numbers = (Leftovers.read(received) ?? "").split(separator: "\n").compactMap { Int($0) }
                #expect(numbers == Array(1...numbers.count), "\(numbers)")
                #expect(try first.succeed("exec", second.id, "hostname") == "host\n")
                // A container more, in the machine that was restored.
                let third = CommandLineContainer(like: first)
                try third.create(
                    bundle: scene.bundle(script: "hostname; sleep 1000") {
                        $0.annotations["io.containerd.runc.v2.group"] = first.id
                    })
                try third.succeed("start", third.id)
                third.wait(forText: "\n")
                try third.succeed("delete", "--force", third.id)
                try scene.write("\(pair.data)/stop", "")
                for container in pair.both {
                    try container.wait(for: "stopped")
                    try container.succeed("delete", container.id)
                }
            }
        }

        /// Left running, and restored beside the pod with other ids; then forked.
        @Test(.enabled(if: Lab.driver == .kvm, needsKVM))
        func aPodIsCopied() throws {
            try Scene.play { scene in
                let pair = try Pair(scene)
                let image = "\(scene.directory)/image"
                try succeed(pair.first, "pod", "checkpoint", "--leave-running", pair.pod, image)
                for container in pair.both { Self.wait(container.output, lines: Self.lines(container.output) + 3) }
                let others = pair.both.map { CommandLineContainer(like: $0) }
                let names = zip(pair.both, others).map { "--rename=\($0.id)=\($1.id)" }
                let output = "\(scene.directory)/restored"
                let missing = try pair.first.run("pod", "restore", "--rename=none=x", image)
                #expect(missing.code == 1 && missing.errorText.contains("container none: not in the checkpoint"))
                let bare = try pair.first.run("pod", "restore", image)
                #expect(
                    bare.code == 1 && bare.errorText.contains("no bundle") && bare.errorText.contains(pair.bundles[0]),
                    "\(bare.errorText)")
                let taken = try pair.first.begin(["pod", "restore"] + pair.bundleOptions + [image]).finish()
                #expect(taken.code == 1 && taken.errorText.contains("exists"), "\(taken.errorText)")
                let restored = try detached(
                    pair.first, ["pod", "restore"] + pair.bundleOptions + names + [image], into: output)
                try #require(restored.code == 0, "\(restored.errorText)")
                for container in pair.both + others { #expect(try container.state()?.status == "running") }
                Self.wait(output, lines: 10)
                try succeed(others[0], "exec", others[1].id, "true")
                for container in others { try container.succeed("delete", "--force", container.id) }

                let copies = "\(scene.directory)/copies"
                let new = scene.newID()
                let forked = try detached(
                    pair.first, ["pod", "fork", "--bundles", copies, pair.pod, new],
                    into: "\(scene.directory)/forked")
                try #require(forked.code == 0, "\(forked.errorText)")
                let ids = [new, "\(new)-\(pair.second.id)"]
                #expect(Leftovers.list(copies).sorted() == ids.sorted())
                try pair.first.succeed("exec", ids[0], "touch", "/mine")
                #expect(access("\(copies)/\(ids[0])/rootfs/mine", F_OK) == 0)
                #expect(access("\(pair.bundles[0])/rootfs/mine", F_OK) != 0)
                #expect(try pair.first.succeed("exec", ids[1], "hostname") == "\(ids[1])\n")
                for container in pair.both { #expect(try container.state()?.status == "running") }
                for id in ids { try pair.first.succeed("delete", "--force", id) }
                #expect(!Leftovers.list(scene.root).contains { $0.hasPrefix(".fork") })
                try pair.delete()
            }
        }

        /// The content of a ConfigMap is in the checkpoint, and follows the host afterwards; Secrets are forked where that is allowed.
        @Test(.enabled(if: Lab.driver == .kvm, needsKVM))
        func volumesInTheGuestGoOn() throws {
            try Scene.play { scene in
                let pods = "\(try scene.makeDirectory("pods"))/uid/volumes"
                func publish(_ plugin: String, _ name: String, _ directory: String, _ text: String) throws -> String {
                    let path = "\(pods)/kubernetes.io~\(plugin)/\(name)"
                    try Command.shell(
                        "mkdir -p \(path)/\(directory); cd \(path); echo \(text) >\(directory)/file; "
                            + "ln -s \(directory) ..data_tmp; mv -T ..data_tmp ..data; ln -sfn ..data/file file")
                    return path
                }
                let map = try publish("configmap", "settings", "..one", "first")
                let secret = try publish("secret", "key", "..one", "hidden")
                let container = try CommandLineContainer(scene)
                let bundle = try scene.bundle(
                    script: "while :; do cat /map/file /secret/file | tr '\\n' ' '; echo; sleep 0.2; done"
                ) { spec in
                    for (place, source) in [("/map", map), ("/secret", secret)] {
                        spec.mounts.append(
                            Mount(destination: place, type: "bind", source: source, options: ["rbind", "ro"]))
                    }
                }
                try container.create(bundle: bundle)
                try container.succeed("start", container.id)
                container.wait(forText: "first hidden")
                let refused = try container.run(
                    "fork", "--bundle", "\(scene.directory)/copy", container.id, scene.newID())
                #expect(
                    refused.code == 1 && refused.errorText.contains("secret key (--with-secrets"),
                    "\(refused.errorText)")
                #expect(access("\(scene.directory)/copy", F_OK) != 0)
                let other = CommandLineContainer(like: container)
                let forked = try detached(
                    other, ["fork", "--with-secrets", "--bundle", "\(scene.directory)/copy", container.id, other.id],
                    into: other.output)
                try #require(forked.code == 0, "\(forked.errorText)")
                other.wait(forText: "first hidden")
                try other.succeed("delete", "--force", other.id)
                let image = "\(scene.directory)/image"
                try succeed(container, "checkpoint", "--image-path", image, container.id)
                let output = "\(scene.directory)/restored"
                let restored = try detached(
                    container, ["restore", "-d", "--image-path", image, "--bundle", bundle, container.id], into: output)
                try #require(restored.code == 0, "\(restored.errorText)")
                Self.wait(output, lines: 2)
                #expect((Leftovers.read(output) ?? "").contains("first hidden"))
                _ = try publish("configmap", "settings", "..two", "second")
                let end = ContinuousClock.now + .seconds(20) * Lab.patience
                while !(Leftovers.read(output) ?? "").contains("second hidden"), ContinuousClock.now < end {
                    usleep(50_000)
                }
                #expect((Leftovers.read(output) ?? "").contains("second hidden"))
                try container.succeed("delete", "--force", container.id)
            }
        }

        /// A disk that is only read is the same again; one that can be written is refused, and one that has changed.
        @Test(.enabled(if: Lab.driver == .kvm, needsKVM))
        func readOnlyDisksGoOn() throws {
            try Scene.play { scene in
                let disk = "\(scene.directory)/disk"
                try Command.shell(
                    "mkdir \(scene.directory)/tree; for i in $(seq 200); do seq 2000 >\(scene.directory)/tree/$i; done; "
                        + "truncate -s 32M \(disk); mkfs.ext4 -q -F -d \(scene.directory)/tree \(disk)",
                    within: .seconds(120))
                func bundle(_ option: String) throws -> String {
                    try scene.bundle(
                        script: "n=0; while :; do n=$((n % 200 + 1)); md5sum </disk/$n; sleep 0.05; done"
                    ) { $0.mounts.append(Mount(destination: "/disk", type: "ext4", source: disk, options: [option])) }
                }
                let writable = try CommandLineContainer(scene)
                try writable.create(bundle: bundle("rw"))
                try writable.succeed("start", writable.id)
                Self.wait(writable.output, lines: 1)
                let image = "\(scene.directory)/image"
                let refused = try writable.run("checkpoint", "--image-path", image, writable.id)
                #expect(
                    refused.code == 1 && refused.errorText.contains("whose disk \(disk) can be written"),
                    "\(refused.errorText)")
                try writable.succeed("delete", "--force", writable.id)

                let container = CommandLineContainer(like: writable)
                let readOnly = try bundle("ro")
                try container.create(bundle: readOnly)
                try container.succeed("start", container.id)
                Self.wait(container.output, lines: 5)
                try succeed(container, "checkpoint", "--image-path", image, container.id)
                let output = "\(scene.directory)/restored"
                let arguments = ["restore", "-d", "--image-path", image, "--bundle", readOnly, container.id]
                let restored = try detached(container, arguments, into: output)
                try #require(restored.code == 0, "\(restored.errorText)")
                Self.wait(output, lines: 220)
                let sums = Set((Leftovers.read(output) ?? "").split(separator: "\n").map(String.init))
                #expect(sums.count == 1, "\(sums.prefix(5))")
                #expect(try container.succeed("exec", container.id, "sh", "-c", "ls /disk | wc -l") == "201\n")
                try container.succeed("delete", "--force", container.id)
                try Command.shell("touch \(disk)")
                let changed = try detached(container, arguments, into: output)
                #expect(changed.code == 1 && changed.errorText.contains("it has changed"), "\(changed.errorText)")
            }
        }

        /// The command is killed while it copies a container: the container goes on, and nothing is left but the half bundle, which the
        /// next fork to it replaces. The server is killed while it writes a checkpoint: nothing is left of that.
        @Test(.enabled(if: Lab.driver == .kvm, needsKVM))
        func aKilledForkLeavesNothing() throws {
            try Scene.play { scene in
                let pair = try Pair(scene)
                let copies = "\(scene.directory)/copies"
                let new = scene.newID()
                for delay in [0.2, 0.6, 1.0, 1.4] {
                    let fork = try pair.first.begin(
                        ["pod", "fork", "--bundles", copies, pair.pod, new], output: .null, errors: .null)
                    usleep(UInt32(delay * 1e6) * UInt32(Lab.patience))
                    fork.child.signal(SIGKILL)
                    _ = try fork.finish(within: .seconds(30))
                    for id in [new, "\(new)-\(pair.second.id)"] { try pair.first.succeed("delete", "--force", id) }
                    for container in pair.both {
                        try container.wait(for: "running")
                        Self.wait(container.output, lines: Self.lines(container.output) + 2)
                    }
                    let end = ContinuousClock.now + .seconds(10) * Lab.patience
                    let left = { Leftovers.list(scene.root).filter { $0.hasPrefix(".fork") } }
                    while !left().isEmpty, ContinuousClock.now < end { usleep(50_000) }
                    #expect(left().isEmpty, "after \(delay) s")
                }
                let forked = try detached(
                    pair.first, ["pod", "fork", "--bundles", copies, pair.pod, new],
                    into: "\(scene.directory)/forked")
                try #require(forked.code == 0, "\(forked.errorText)")
                for id in [new, "\(new)-\(pair.second.id)"] { try pair.first.succeed("delete", "--force", id) }

                let state = "\(scene.root)/\(pair.pod)/state.json"
                let server = try Leftovers.process("server", in: state)
                let image = "\(scene.directory)/image"
                let command = try pair.first.begin(
                    ["pod", "checkpoint", "--leave-running", pair.pod, image], output: .null, errors: .null)
                let end = ContinuousClock.now + .seconds(20) * Lab.patience
                while access("\(image)/memory", F_OK) != 0, ContinuousClock.now < end { usleep(1000) }
                kill(server, SIGKILL)
                #expect(try command.finish(within: .seconds(60)).code != 0)
                try pair.delete()
                #expect(access(image, F_OK) != 0, "\(Leftovers.list(image))")
            }
        }

        /// No room for a checkpoint: nothing is left of it, and all containers go on.
        @Test(.enabled(if: Lab.driver == .kvm, needsKVM))
        func aFullDiskLeavesThePodAsItIs() throws {
            try Scene.play { scene in
                let pair = try Pair(scene)
                let full = try scene.makeDirectory("full")
                try Command.shell("mount -t tmpfs -o size=4m full \(full)")
                defer { umount2(full, Int32(MNT_DETACH)) }
                for arguments in [["--leave-running"], []] {
                    let noRoom = try pair.first.begin(
                        ["pod", "checkpoint"] + arguments + [pair.pod, "\(full)/image"]
                    ).finish(within: .seconds(120))
                    #expect(noRoom.code == 1 && noRoom.errorText.contains("No space left"), "\(noRoom.errorText)")
                    #expect(Leftovers.list(full).isEmpty)
                    let received = "\(pair.data)/received"
                    Self.wait(received, lines: Self.lines(received) + 3)
                    for container in pair.both { #expect(try container.state()?.status == "running") }
                }
                try pair.delete()
            }
        }

        /// What CRI's CheckpointContainer asks containerd for: a container beside the one that stands for its pod. Beside others it is
        /// refused.
        @Test(.enabled(if: CRI.obstacle == nil && !CRIO.isWanted, "\(CRI.obstacle ?? "the engine is CRI-O")"))
        func aContainerOfAKubernetesPodIsSaved() throws {
            try CRI.play { cri in
                let containerd = try #require(cri.engine as? Containerd)
                let pod = try cri.run()
                let first = try pod.start("first", "echo over")
                try first.wait()
                let container = try pod.start(
                    "count", "n=0; while :; do n=$((n+1)); echo $n >/count; sleep 0.1; done")
                let count = { Int(try container.shell("cat /count").split(separator: "\n").first ?? "") ?? 0 }
                try waiting(within: .seconds(20), for: "the count") { try count() > 5 }
                func checkpoint() throws -> Outcome {
                    let image = "localhost/checkpoint:\(cri.scene.newID())"
                    let arguments = ["container", "checkpoint", "--rw", "--image", "--task", container.id, image]
                    let outcome = try containerd.begin(arguments).finish(within: .seconds(180))
                    _ = try? containerd.ctr("image", "rm", image)
                    return outcome
                }
                let taken = try checkpoint()
                if Lab.driver == .kvm {
                    #expect(taken.code == 0, "\(taken.errorText)")
                } else {
                    #expect(taken.errorText.contains("a checkpoint with qemu"), "\(taken.errorText)")
                }
                let before = try count()
                try waiting(within: .seconds(20), for: "the count to go on") { try count() > before }
                #expect(try first.state == "CONTAINER_EXITED")
                try first.remove()
                let second = try pod.start("second")
                let beside = try checkpoint()
                if Lab.driver == .kvm {
                    #expect(
                        beside.errorText.contains("without containers") && beside.errorText.contains(second.id),
                        "\(beside.errorText)")
                }
                try pod.remove()
            }
        }

        @Test(.enabled(if: Lab.driver == .qemu, "QEMU alone refuses checkpoints"))
        func qemuRefusesThem() throws {
            try Scene.play { scene in
                let pair = try Pair(scene)
                let image = "\(scene.directory)/image"
                for arguments in [
                    ["pod", "checkpoint", pair.pod, image],
                    ["pod", "fork", "--bundles", image, pair.pod, scene.newID()],
                ] {
                    let refused = try pair.first.begin(arguments).finish(within: .seconds(60))
                    #expect(
                        refused.code == 1 && refused.errorText.contains("a checkpoint with qemu"),
                        "\(arguments): \(refused.errorText)")
                }
                #expect(access(image, F_OK) != 0)
                for container in pair.both { try container.wait(for: "running") }
                try pair.delete()
            }
        }
    }
}
