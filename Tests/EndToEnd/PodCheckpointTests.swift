import Glibc
import LinuxSystem
import OCISpec
import Testing

extension Containers {
    /// Whole pods that are written to a directory, go on from it, and are copied. The built-in VMM alone can.
    @Suite struct PodCheckpointTests {
        private static let needsKVM: Comment =
            "the driver under test is not the built-in VMM, which alone saves machines"

        /// Processes of two containers, the connection between them, and what one asks of the other.
        @Test(.enabled(if: Lab.driver == .kvm, needsKVM))
        func allContainersGoOn() throws {
            try Scene.play { scene in
                let pair = try PodPair(scene)
                let (first, second) = (pair.first, pair.second)
                let (received, image) = ("\(pair.data)/received", "\(scene.directory)/image")
                LineFile.wait(received, lines: 3)
                let alone = try first.run("checkpoint", "--image-path", image, first.id)
                #expect(alone.code == 1 && alone.errorText.contains("without containers"), "\(alone.errorText)")
                #expect(alone.errorText.contains(second.id) && alone.errorText.contains("martlet pod checkpoint"))
                try first.succeedSlowly("pod", "checkpoint", pair.pod, image)
                #expect(try first.state() == nil && second.state() == nil)
                #expect(Leftovers.list(image).sorted() == ["checkpoint.json", "files", "memory", "state"])
                let before = LineFile.count(received)

                let one = try first.run("restore", "--image-path", image, "--bundle", pair.bundles[0], first.id)
                #expect(one.code == 1 && one.errorText.contains("martlet pod restore"), "\(one.errorText)")
                let output = "\(scene.directory)/restored"
                let restored = try first.detached(["pod", "restore"] + pair.bundleOptions + [image], into: output)
                try #require(restored.code == 0, "\(restored.errorText)")
                for container in pair.both { #expect(try container.state()?.status == "running") }
                LineFile.wait(received, lines: before + 5)
                LineFile.wait(output, lines: 10)
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
                let pair = try PodPair(scene)
                let image = "\(scene.directory)/image"
                try pair.first.succeedSlowly("pod", "checkpoint", "--leave-running", pair.pod, image)
                for container in pair.both {
                    LineFile.wait(container.output, lines: LineFile.count(container.output) + 3)
                }
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
                let restored = try pair.first.detached(
                    ["pod", "restore"] + pair.bundleOptions + names + [image], into: output)
                try #require(restored.code == 0, "\(restored.errorText)")
                for container in pair.both + others { #expect(try container.state()?.status == "running") }
                LineFile.wait(output, lines: 10)
                try others[0].succeedSlowly("exec", others[1].id, "true")
                for container in others { try container.succeed("delete", "--force", container.id) }

                let copies = "\(scene.directory)/copies"
                let new = scene.newID()
                let forked = try pair.first.detached(
                    ["pod", "fork", "--bundles", copies, pair.pod, new],
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
                let forked = try other.detached(
                    ["fork", "--with-secrets", "--bundle", "\(scene.directory)/copy", container.id, other.id],
                    into: other.output)
                try #require(forked.code == 0, "\(forked.errorText)")
                other.wait(forText: "first hidden")
                try other.succeed("delete", "--force", other.id)
                let image = "\(scene.directory)/image"
                try container.succeedSlowly("checkpoint", "--image-path", image, container.id)
                let output = "\(scene.directory)/restored"
                let restored = try container.detached(
                    ["restore", "-d", "--image-path", image, "--bundle", bundle, container.id], into: output)
                try #require(restored.code == 0, "\(restored.errorText)")
                LineFile.wait(output, lines: 2)
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
                    "mkdir \(scene.directory)/tree; for i in $(seq 40); do seq 2000 >\(scene.directory)/tree/$i; done; "
                        + "truncate -s 32M \(disk); mkfs.ext4 -q -F -d \(scene.directory)/tree \(disk)",
                    within: .seconds(120))
                func bundle(_ option: String) throws -> String {
                    try scene.bundle(
                        script: "n=0; while :; do n=$((n % 40 + 1)); md5sum </disk/$n; sleep 0.05; done"
                    ) { $0.mounts.append(Mount(destination: "/disk", type: "ext4", source: disk, options: [option])) }
                }
                let writable = try CommandLineContainer(scene)
                try writable.create(bundle: bundle("rw"))
                try writable.succeed("start", writable.id)
                LineFile.wait(writable.output, lines: 1)
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
                LineFile.wait(container.output, lines: 5)
                try container.succeedSlowly("checkpoint", "--image-path", image, container.id)
                let output = "\(scene.directory)/restored"
                let arguments = ["restore", "-d", "--image-path", image, "--bundle", readOnly, container.id]
                let restored = try container.detached(arguments, into: output)
                try #require(restored.code == 0, "\(restored.errorText)")
                LineFile.wait(output, lines: 50)
                let sums = Set((Leftovers.read(output) ?? "").split(separator: "\n").map(String.init))
                #expect(sums.count == 1, "\(sums.prefix(5))")
                #expect(try container.succeed("exec", container.id, "sh", "-c", "ls /disk | wc -l") == "41\n")
                try container.succeed("delete", "--force", container.id)
                try Command.shell("touch \(disk)")
                let changed = try container.detached(arguments, into: output)
                #expect(changed.code == 1 && changed.errorText.contains("it has changed"), "\(changed.errorText)")
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

        /// A container of a checkpoint that is created in a pod which runs, as containerd does it, is refused; the pod goes on.
        @Test func aMachineThatRunsTakesNoOtherIn() throws {
            try Scene.play { scene in
                let pair = try PodPair(scene)
                let other = CommandLineContainer(like: pair.first)
                let refused = try other.run(
                    "restore", "-d", "--image-path", "\(scene.directory)/image", "--bundle", pair.bundles[0], other.id)
                #expect(
                    refused.code == 1 && refused.errorText.contains("whose machine runs already"),
                    "\(refused.errorText)")
                #expect(try other.state() == nil)
                for container in pair.both { #expect(try container.state()?.status == "running") }
                try pair.delete()
            }
        }

        @Test(.enabled(if: Lab.driver == .qemu, "QEMU alone refuses checkpoints"))
        func qemuRefusesThem() throws {
            try Scene.play { scene in
                let pair = try PodPair(scene)
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
