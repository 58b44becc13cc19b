import Glibc
import LinuxSystem
import OCISpec
import Testing

extension Containers {
    /// `martlet pod cp`.
    @Suite struct FileCopyTests {
        /// A running container with a tmpfs at /scratch, a small one at /small, and a directory of the host at /volume.
        private func play(_ body: (CommandLineContainer, Scene) throws -> Void) throws {
            try Scene.play { scene in
                let volume = try scene.makeDirectory("volume")
                let bundle = try scene.bundle(args: ["sleep", "1000"]) { spec in
                    spec.mounts += [
                        Mount(destination: "/scratch", type: "tmpfs", source: "tmpfs"),
                        Mount(destination: "/small", type: "tmpfs", source: "tmpfs", options: ["size=4m"]),
                        Mount(destination: "/volume", type: "bind", source: volume, options: ["rbind", "rw"]),
                    ]
                }
                let container = try CommandLineContainer(scene)
                try container.create(bundle: bundle)
                try container.succeed("start", container.id)
                try body(container, scene)
                try container.succeed("delete", "--force", container.id)
            }
        }

        private func random(_ scene: Scene, _ name: String, mebibytes: Int) throws -> String {
            let path = "\(scene.directory)/\(name)"
            try Command.shell("head -c \(mebibytes << 20) /dev/urandom >\(path)", within: .seconds(60))
            return path
        }

        /// Waits until nobody is left in a pod who copies.
        ///
        /// - Parameter options: of the command line.
        static func waitForCopies(of pod: String, toEnd options: [String]) throws {
            let end = ContinuousClock.now + .seconds(10) * Lab.patience
            while true {
                let outcome = try Command(Lab.martlet, options + ["pod", "ps", pod]).finish()
                #expect(outcome.code == 0 && outcome.text.contains("sleep"), "\(outcome.errorText)")
                if !outcome.text.contains("martlet-agent") { return }
                guard ContinuousClock.now < end else { throw LabError("a copy goes on: \(outcome.text)") }
                usleep(50_000)
            }
        }

        @Test func filesGoBothWaysByteForByte() throws {
            try play { container, scene in
                let (id, directory) = (container.id, scene.directory)
                // The lab's machine is emulated, and its copies take many times as long.
                let file = try random(scene, "large", mebibytes: Lab.patience > 1 && !Lab.everything ? 8 : 64)
                try container.succeed("pod", "cp", file, "\(id):/scratch/large")
                let sum = try Command.shell("md5sum <\(file)")
                #expect(try container.succeed("exec", id, "sh", "-c", "md5sum </scratch/large") == sum)
                try container.succeed("pod", "cp", "\(id):/scratch/large", "\(directory)/back")
                try Command.run("cmp", [file, "\(directory)/back"])
                // Several at once.
                let copies = try (0..<6).map { number in
                    try container.begin(["pod", "cp", "\(id):/bin", "\(directory)/bin\(number)"])
                }
                for copy in copies { #expect(try copy.finish().code == 0) }
                for number in 1..<6 {
                    try Command.run(
                        "diff", ["-r", "--no-dereference", "\(directory)/bin0", "\(directory)/bin\(number)"])
                }
                // Into the root file system, whose files the host serves, and a volume.
                try container.succeed("exec", id, "rm", "/bin/tar", "/bin/sh")
                try container.succeed("pod", "cp", file, "\(id):/root")
                try Command.run("cmp", [file, "\(directory)/bundle-1/rootfs/root/large"])
                try container.succeed("pod", "cp", "\(id):/root/large", "\(directory)/volume/again")
                try container.succeed("pod", "cp", "\(id):/volume/again", "\(directory)/twice")
                try Command.run("cmp", [file, "\(directory)/twice"])
            }
        }

        @Test func treesKeepLinksModesTimesAndOwners() throws {
            try play { container, scene in
                let (id, directory) = (container.id, scene.directory)
                try Command.shell(
                    """
                    cd \(directory) && mkdir -p tree/sub/empty && echo one >tree/one && ln tree/one tree/sub/two && ln -s ../one tree/sub/link
                    ln -s /etc/passwd tree/absolute && mkfifo tree/fifo && chown -R 12:34 tree && chmod 4751 tree/one && chmod 500 tree/sub/empty
                    touch -d '2001-02-03 04:05:06.7 UTC' tree/one tree/sub/empty
                    """)
                try container.succeed("pod", "cp", "-a", "\(directory)/tree", "\(id):/scratch")
                let list =
                    "cd /scratch/tree && stat -c '%n %a %u:%g %h %F %Y' . one sub sub/two sub/link sub/empty absolute fifo"
                let expected = try Command.shell("\(list.replacing("/scratch", with: directory))")
                #expect(try container.succeed("exec", id, "sh", "-c", list) == expected)
                // As an archive, which tar reads; devices and fifos come with it.
                let archive = "\(directory)/tree.tar"
                let output = try SharedDescriptor(OwnedDescriptor.open(archive, O_WRONLY | O_CREAT, mode: 0o644))
                #expect(
                    try container.begin(["pod", "cp", "\(id):/scratch/tree/.", "-"], output: .descriptor(output))
                        .finish().code == 0)
                try Command.shell("mkdir \(directory)/unpacked && tar -xpf \(archive) -C \(directory)/unpacked")
                #expect(
                    try Command.shell(list.replacing("/scratch/tree", with: "\(directory)/unpacked")) == expected)
                try Command.shell("cd \(directory); rm tree/fifo unpacked/fifo; diff -r --no-dereference tree unpacked")
                // To the host without -a: the user's, without what gives rights; the fifo is named.
                let outcome = try container.run("pod", "cp", "\(id):/scratch/tree", "\(directory)/mine")
                #expect(outcome.code == 0 && outcome.errorText.contains("mine/fifo") == false, "\(outcome.errorText)")
                #expect(outcome.errorText.contains("tree/fifo"), "\(outcome.errorText)")
                #expect(try Command.shell("stat -c '%a %u %h' \(directory)/mine/one") == "751 0 2\n")
                // And an archive of the host's from standard input.
                let input = try SharedDescriptor(OwnedDescriptor.open(archive, O_RDONLY))
                #expect(
                    try container.begin(["pod", "cp", "-", "\(id):/volume"], input: .descriptor(input)).finish().code
                        == 0)
                #expect(try Command.shell("cat \(directory)/volume/sub/two") == "one\n")
            }
        }

        @Test func linksLeadNowhereElse() throws {
            try play { container, scene in
                let (id, directory) = (container.id, scene.directory)
                try scene.write("file", "from the host\n")
                try container.succeed(
                    "exec", id, "sh", "-c",
                    "ln -s /etc/passwd /scratch/a; ln -s ../../../../../etc/x /scratch/b; ln -s / /scratch/r")
                // Both are the container's own.
                try container.succeed("pod", "cp", "\(directory)/file", "\(id):/scratch/b")
                #expect(try container.succeed("exec", id, "cat", "/etc/x") == "from the host\n")
                try container.succeed("pod", "cp", "-L", "\(id):/scratch/a", "\(directory)/passwd")
                #expect(try readText("\(directory)/passwd").hasPrefix("root:x:0:0:root:/root:/bin/sh"))
                try container.succeed("pod", "cp", "\(id):/scratch/r/scratch/a", "\(directory)/link")
                #expect(symbolicLink("\(directory)/link") == "/etc/passwd")
                let magic = try container.run("pod", "cp", "\(id):/proc/1/root/etc/passwd", "\(directory)/magic")
                #expect(magic.code != 0 && access("\(directory)/magic", F_OK) != 0, "\(magic.errorText)")
            }
        }

        @Test func whatCanNotBeCopiedIsRefusedByName() throws {
            try play { container, scene in
                let (id, directory) = (container.id, scene.directory)
                try scene.write("file", "x")
                func refuse(_ arguments: String..., saying wanted: String) throws {
                    let outcome = try container.begin(["pod", "cp"] + arguments).finish()
                    #expect(
                        outcome.code != 0 && outcome.errorText.contains(wanted), "\(arguments): \(outcome.errorText)")
                }
                try refuse("\(id):/no/such", directory, saying: "/no/such: no such file or directory")
                try refuse("\(id):/etc/passwd/", directory, saying: "/etc/passwd: not a directory")
                try refuse("\(directory)/none", "\(id):/", saying: "none: no such file or directory")
                try refuse(
                    "\(directory)/file", "\(id):/no/such/place", saying: "/no/such/place: no such file or directory")
                try refuse("\(directory)/volume", "\(id):/etc/passwd", saying: "a directory can't be copied to a file")
                try refuse("\(directory)/file", "nobody:/", saying: "nobody")
                try refuse("--container", "other", "\(directory)/file", "\(id):/", saying: "other")
                try refuse("\(directory)/file", directory, saying: "neither")
                try refuse("\(id):/etc", "\(id):/tmp", saying: "from one container to another")
                try refuse("\(id):/etc/passwd", "\(directory)/no/such", saying: "no/such: no such file or directory")
                try container.succeed("pause", id)
                try refuse("\(id):/etc", directory, saying: "paused")
                try container.succeed("resume", id)
                try container.succeed("pod", "cp", "\(id):/etc/passwd", "\(directory)/passwd")
            }
        }

        @Test func whatBreaksOffEnds() throws {
            try play { container, scene in
                let (id, directory) = (container.id, scene.directory)
                let file = try random(scene, "large", mebibytes: 48)
                // No room in the container: half a file is none.
                let full = try container.run("pod", "cp", file, "\(id):/small")
                #expect(full.code != 0 && full.errorText.contains("No space left"), "\(full.errorText)")
                #expect(try container.succeed("exec", id, "ls", "/small") == "")
                // No room on the host.
                try container.succeed("pod", "cp", file, "\(id):/scratch/large")
                let host = try Command(
                    "/usr/bin/unshare",
                    [
                        "-m", "/bin/sh", "-c",
                        "mount -t tmpfs -o size=1m tmpfs \(directory)/volume && exec \"$@\"", "sh", Lab.martlet,
                        "--root",
                        scene.root, "pod", "cp", "\(id):/scratch/large", "\(directory)/volume",
                    ]
                ).finish()
                #expect(host.code != 0 && host.errorText.contains("No space left"), "\(host.errorText)")
                // The reader goes away.
                let reader = try Command.shell(
                    "(\(Lab.martlet) --root \(scene.root) pod cp \(id):/scratch/large - || true) | head -c 100000 | wc -c"
                )
                #expect(reader == "100000\n")
                // The command is killed while it waits for more.
                let stuck = try container.begin(["pod", "cp", "-", "\(id):/scratch"], input: .pipe)
                usleep(300_000)
                stuck.child.signal(SIGKILL)
                _ = try stuck.finish()
                // The archive breaks off.
                let cut = try container.begin(["pod", "cp", "-", "\(id):/scratch"], input: .pipe)
                cut.input?.write(String(repeating: "\0", count: 100))
                cut.input?.close()
                let outcome = try cut.finish()
                #expect(outcome.code != 0 && outcome.errorText.contains("the archive"), "\(outcome.errorText)")
                try Self.waitForCopies(of: id, toEnd: ["--root", scene.root])
                // The container ends.
                let orphan = try container.begin(["pod", "cp", "-", "\(id):/scratch"], input: .pipe)
                usleep(500_000)
                try container.succeed("kill", id, "KILL")
                #expect(try orphan.finish().code != 0)
            }
        }
    }
}
