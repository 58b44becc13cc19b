import Glibc
import LinuxSystem
import OCISpec
import Testing

extension Containers {
    /// Root file systems in images, as snapshotters describe them: disks of the machine, which the guest mounts and stacks.
    @MainActor @Suite(.enabled(if: ShimPod.obstacle == nil, "\(ShimPod.obstacle ?? "")"))
    struct DiskRootTests {
        typealias Mount = ShimPod.RootMount

        /// A directory with busybox, and an ext4 image of it.
        private func image(_ scene: Scene, mebibytes: Int = 64) throws -> String {
            let tree = try scene.makeDirectory("tree-\(scene.newID())")
            _ = try Rootfs.busybox.place(in: tree)
            let path = "\(tree)/image"
            try Command.shell(
                "truncate -s \(mebibytes)M \(path) && mkfs.ext4 -q -F -d \(tree)/rootfs \(path)", within: .seconds(120))
            return path
        }

        private func file(_ path: String, in image: String) throws -> String {
            try Command.shell("debugfs -R 'cat \(path)' \(image) 2>/dev/null")
        }

        @Test func anImageIsTheRoot() throws {
            try ShimPod.play(
                script: "grep ' / ' /proc/mounts; echo kept >/file && mkdir -p /a/b && touch /a/b/c && sync"
            ) {
                pod, scene, bundle in
                let image = try image(scene)
                let (code, output, errors) = try pod.outcome(
                    pod.id, bundle: bundle, [Mount(type: "ext4", source: image, options: ["loop", "rw"])])
                #expect(code == 0, "\(errors)")
                #expect(output.contains("/dev/vda / ext4 rw"), "\(output)")
                try pod.shutdown()
                try Command.shell("e2fsck -f -n \(image)", within: .seconds(60))
                #expect(try file("/file", in: image) == "kept\n")
                // The host's own file system has got nothing of it.
                #expect(try Command.shell("find \(bundle)/rootfs | wc -l") == "1\n")
            }
        }

        @Test func aReadOnlyImageStaysAsItIs() throws {
            let script = """
                echo x >/file || echo refused; echo x >/etc/passwd || echo refused; ls -d /proc/self/exe /new >/dev/null && echo all
                """
            try ShimPod.play { pod, scene, _ in
                let image = try image(scene)
                let before = try Command.run("md5sum", [image])
                let bundle = try ShimPod.bundle(scene, script: script, joins: pod.id) { spec in
                    // Its place is not in the image.
                    spec.mounts.append(OCISpec.Mount(destination: "/new", type: "tmpfs", source: "tmpfs"))
                }
                try pod.run(
                    pod.id, bundle: try ShimPod.bundle(scene, script: "sleep 1000"),
                    [Mount(type: "ext4", source: image, options: ["ro"])])
                let (code, output, errors) = try pod.outcome(
                    "\(pod.id)-b", bundle: bundle, [Mount(type: "ext4", source: image, options: ["ro"])])
                #expect(code == 0 && output == "refused\nrefused\nall\n", "\(output)\(errors)")
                try pod.kill(pod.id)
                _ = try pod.end(of: pod.id)
                try pod.delete(pod.id)
                #expect(try Command.run("md5sum", [image]) == before)
            }
        }

        /// The mounts of containerd's EROFS snapshotter, whose writable layer is an image.
        @Test func layersOfErofsAreStacked() throws {
            let script = """
                cat /etc/which; ls /etc/gone /opaque 2>/dev/null; echo changed >/etc/which && cat /etc/which; grep -c vd /proc/partitions
                """
            try ShimPod.play(script: script) { pod, scene, bundle in
                let (mounts, image) = try stack(scene, layers: 2)
                let (code, output, errors) = try pod.outcome(pod.id, bundle: bundle, mounts)
                #expect(code == 0, "\(errors)")
                // Two disks, one with three parts: the base is below the two.
                #expect(output == "2\n/opaque:\nnew\nchanged\n5\n", "\(output)\(errors)")
                try pod.shutdown()
                try Command.shell("e2fsck -f -n \(image)", within: .seconds(60))
                #expect(try file("/upper/etc/which", in: image) == "changed\n")
            }
        }

        /// More layers than a machine has slots, or a page of mount options has room for.
        @Test func aHundredLayersTakeOneSlot() throws {
            let script = "cat /etc/which; ls /layers | wc -l; ls /etc/gone 2>/dev/null; ls /sys/block | grep -c vd"
            try ShimPod.play(script: script) { pod, scene, bundle in
                let (mounts, _) = try stack(scene, layers: 99)
                let (code, output, errors) = try pod.outcome(pod.id, bundle: bundle, mounts)
                #expect(code == 0 && output == "99\n50\n2\n", "\(output)\(errors)")
            }
        }

        /// A base of busybox with layers upon it. Each changes a file, and the second of each two takes away what the first has
        /// made.
        private func stack(_ scene: Scene, layers: Int) throws -> (mounts: [Mount], image: String) {
            let tree = try scene.makeDirectory("base")
            _ = try Rootfs.busybox.place(in: tree)
            var paths = ["\(scene.directory)/base.erofs"]
            try Command.shell(
                """
                cd \(tree)/rootfs && echo 0 >etc/which && touch etc/gone && mkdir opaque layers && touch opaque/old
                mkfs.erofs \(paths[0]) \(tree)/rootfs >/dev/null
                """)
            for number in 1...layers {
                let extra =
                    number == 1
                    ? "mknod etc/gone c 0 0; mkdir opaque; touch opaque/new; python3 -c 'import os; os.setxattr(\"opaque\", \"trusted.overlay.opaque\", b\"y\")'"
                    : number % 2 == 0
                        ? "mknod layers/\(number - 1) c 0 0; touch layers/\(number)" : "touch layers/\(number)"
                paths.append(
                    try scene.layer("layer\(number)", "mkdir etc layers; echo \(number) >etc/which; \(extra)"))
            }
            return try scene.stack(paths)
        }

        /// Without a writable image what is written stays in the guest's memory, and an empty root is a directory of an image.
        @Test func anUpperDirectoryOfTheHostIsNotWrittenTo() throws {
            try ShimPod.play { pod, scene, _ in
                let tree = try scene.makeDirectory("base")
                _ = try Rootfs.busybox.place(in: tree)
                let base = "\(scene.directory)/base.erofs"
                try Command.shell("mkfs.erofs \(base) \(tree)/rootfs >/dev/null; mkdir \(tree)/fs \(tree)/work")
                let bundle = try ShimPod.bundle(scene, script: "echo x >/file && cat /file")
                let mounts = [
                    Mount(type: "erofs", source: base, options: ["ro", "loop"]),
                    Mount(
                        type: "format/mkdir/overlay", source: "overlay",
                        options: ["workdir=\(tree)/work", "upperdir=\(tree)/fs", "lowerdir={{ mount 0 }}"]),
                ]
                let (code, output, errors) = try pod.outcome(pod.id, bundle: bundle, mounts)
                #expect(code == 0 && output == "x\n", "\(output)\(errors)")
                #expect(try Command.shell("find \(tree)/fs \(tree)/work | wc -l") == "2\n")
            }
        }

        @Test func containersThatJoinGetDisksAndGiveThemBack() throws {
            try ShimPod.play { pod, scene, bundle in
                let first = try image(scene)
                try pod.run(pod.id, bundle: bundle, [Mount(type: "ext4", source: first)])
                let second = try image(scene)
                let volume = "\(scene.directory)/volume"
                try Command.shell("truncate -s 16M \(volume) && mkfs.ext4 -q -F \(volume)")
                // More often than there are slots.
                for round in 0..<(Lab.everything ? 40 : 10) {
                    let script = "echo \(round) >>/log && echo \(round) >>/data/log && wc -l </data/log"
                    let bundle = try ShimPod.bundle(scene, script: script, joins: pod.id) { spec in
                        spec.mounts.append(OCISpec.Mount(destination: "/data", type: "ext4", source: volume))
                    }
                    let (code, output, errors) = try pod.outcome(
                        "\(pod.id)-\(round)", bundle: bundle, [Mount(type: "ext4", source: second)])
                    #expect(code == 0 && output == "\(round + 1)\n", "\(round): \(output)\(errors)")
                }
                // The machine that it is in has let go of it.
                try Command.shell("e2fsck -f -n \(second) && e2fsck -f -n \(volume)", within: .seconds(60))
                #expect(try file("/log", in: second).split(separator: "\n").count == (Lab.everything ? 40 : 10))

                // One writer at a time.
                let other = try ShimPod.bundle(scene, script: "true")
                let stranger = try ShimPod(scene, bundle: other)
                defer { stranger.end() }
                let error = #expect(throws: (any Error).self) {
                    try stranger.create(stranger.id, bundle: other, [Mount(type: "ext4", source: first)])
                }
                #expect("\(error.map { "\($0)" } ?? "")".contains("\(first): another machine"))
                try pod.kill(pod.id)
                _ = try pod.end(of: pod.id)
                try pod.delete(pod.id)
            }
        }

        @Test func anotherFileSystemIsRefusedByName() throws {
            try ShimPod.play { pod, scene, bundle in
                let file = try scene.write("image", "no file system")
                let error = #expect(throws: (any Error).self) {
                    try pod.create(pod.id, bundle: bundle, [Mount(type: "xfs", source: file)])
                }
                #expect("\(error.map { "\($0)" } ?? "")".contains("rootfs[0].type: xfs on a disk"))
            }
        }

        @Test func aFullRootFailsThereAndAKilledMachineLeavesItWhole() throws {
            let script = """
                dd if=/dev/zero of=/fill bs=1M 2>&1 | grep -q 'No space left' && echo full; rm /fill; sync
                while :; do echo x >>/log; mv /log /log2; mv /log2 /log; done
                """
            try ShimPod.play { pod, scene, _ in
                let image = try image(scene)
                let bundle = try ShimPod.bundle(scene, script: script)
                let begin = try Command.shell("stat -c %b \(image)")
                try pod.run(pod.id, bundle: bundle, [Mount(type: "ext4", source: image, options: ["discard"])])
                let end = ContinuousClock.now + .seconds(120) * Lab.patience
                while Leftovers.read("\(bundle)/out") != "full\n", ContinuousClock.now < end { usleep(100_000) }
                #expect(Leftovers.read("\(bundle)/out") == "full\n")
                // What was freed is free on the host again.
                sleep(3)
                let now = try Command.shell("stat -c %b \(image)")
                let (before, after) = (Int(begin.dropLast()) ?? 0, Int(now.dropLast()) ?? 0)
                #expect(after < before + 16 << 11, "\(before) to \(after) blocks of 512 bytes")
                try killDisk(of: pod)
                _ = try pod.end(of: pod.id)
                try pod.delete(pod.id)
                let checked = try Command("e2fsck", ["-p", image]).finish()
                #expect([0, 1].contains(checked.code), "\(checked.text)")
                try Command.shell("e2fsck -f -n \(image)", within: .seconds(60))
            }
        }

        /// Kills the process that serves the pod's disk.
        private func killDisk(of pod: ShimPod) throws {
            if Lab.driver == .kvm { return try #require(kill(try pod.process("martlet-vmm"), SIGKILL) == 0) }
            let found = try Command.shell("pgrep -P \(try pod.process("server")) -f 'martlet-device blk'")
            let pid = try #require(found.split(separator: "\n").first.flatMap { Int32($0) })
            try #require(kill(pid, SIGKILL) == 0)
        }
    }
}
