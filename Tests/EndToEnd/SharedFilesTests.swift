import Glibc
import LinuxSystem
import OCISpec
import Testing

extension Containers {
    /// One file of the host is one inode in the guest, whichever mount of whichever container leads to it.
    @Suite struct SharedFilesTests {
        private func bound(_ path: String, at destination: String, _ options: [String] = ["rbind"]) -> Mount {
            Mount(destination: destination, type: "bind", source: path, options: options)
        }

        /// Unix sockets, both kinds of locks, shared mappings, a fifo, inotify, names that change: between containers that
        /// mount a directory, a part of it, or it read-only.
        @Test(.enabled(if: Containerd.obstacle == nil, "\(Containerd.obstacle ?? "")"))
        func containersOfAPodHaveTheSameFiles() throws {
            try Containerd.play { containerd, scene in
                let volume = try scene.makeDirectory("volume")
                try Command.shell("mkdir -p \(volume)/deep/part")
                let program = try Program.path("sharing")
                func start(_ id: String, _ mounts: [String], _ options: [String] = []) throws {
                    let all = mounts + ["src=\(program),dst=/sharing,options=rbind:ro"]
                    let words = ["-d"] + all.flatMap { ["--mount", "type=bind,\($0)"] } + options
                    let sleep = ["/bin/sh", "-c", "while :; do sleep 1; done"]
                    try containerd.begin(Containerd.run(words, id, sleep)).finishWell()
                }
                func exec(_ id: String, _ script: String) throws -> String {
                    try containerd.succeed("task", "exec", "--exec-id", scene.newID(), id, "/bin/sh", "-c", script)
                }
                func end(_ id: String) throws {
                    try containerd.succeed("task", "kill", "--signal", "KILL", id)
                    try containerd.wait(for: "STOPPED", of: id)
                    _ = try containerd.ctr("task", "rm", id)
                    try containerd.succeed("container", "rm", id)
                }
                let (server, writer, reader, part) = (scene.newID(), scene.newID(), scene.newID(), scene.newID())
                let member = ["--annotation", "io.containerd.runc.v2.group=\(server)"]
                // The part first: the guest knows it before the directory that it is in.
                try start(server, ["src=\(volume),dst=/x,options=rbind:rw"])
                try start(part, ["src=\(volume)/deep/part,dst=/z,options=rbind:rw"], member)
                try start(writer, ["src=\(volume),dst=/y,options=rbind:rw"], member)
                try start(reader, ["src=\(volume)/deep,dst=/r,options=rbind:ro"], member)
                _ = try exec(
                    server,
                    """
                    cd /x/deep/part; /sharing serve /x/deep/part >/log & until grep serving /log; do sleep 0.1; done
                    """)
                for (container, directory) in [(writer, "/y/deep/part"), (part, "/z"), (reader, "/r/part ro")] {
                    let text = try exec(container, "/sharing check \(directory)")
                    let expected = container == reader ? 7 : 10
                    #expect(text.split(separator: "\n").filter { $0.hasPrefix("ok ") }.count == expected, "\(text)")
                    #expect(!text.contains("bad"), "\(directory): \(text)")
                }
                // The one whose mount the directory came from first goes; the others go on.
                try end(writer)
                #expect(try exec(part, "/sharing check /z").contains("ok socket"))
                #expect(try exec(server, "cd /x/deep/part && ls .. && cat /log").contains("part"))
                for id in [reader, part, server] { try end(id) }
            }
        }

        /// In one container: a file bound twice, and a mount of the host that is reached below another one and by itself.
        @Test func aFileReachedTwiceIsOne() throws {
            try Scene.play { scene in
                let host = try scene.makeDirectory("host")
                try Command.shell(
                    "mkdir \(host)/below; mount -t tmpfs none \(host)/below; for x in \(host) \(host)/below; do truncate -s 4096 $x/file; done"
                )
                defer { umount2("\(host)/below", 0) }
                let script = """
                    sharing same /one /two; sharing same /one /all/file; sharing same /m/file /all/below/file
                    sharing same /m/file /three; stat -c %d /all/file /m/file | uniq | wc -l; ls /top/below | wc -l
                    """
                let bundle = try scene.bundle(script: script) { spec in
                    for name in ["/one", "/two"] { spec.mounts.append(bound("\(host)/file", at: name, ["bind"])) }
                    spec.mounts += [
                        bound(host, at: "/all"), bound("\(host)/below", at: "/m", ["bind"]),
                        bound("\(host)/below/file", at: "/three", ["bind", "ro"]), bound(host, at: "/top", ["bind"]),
                    ]
                }
                try Program.install("sharing", in: bundle)
                let outcome = try scene.run(bundle: bundle)
                let ok = ["ok numbers", "ok flock", "ok mapping"]
                // Two devices; and without `rbind` what is mounted below does not show.
                #expect(outcome.lines == ok + ok + ok + ok + ["2", "0"], "\(outcome.text)\(outcome.errorText)")
            }
        }
    }

    /// overlayfs mounted by a container, as engines and image builders in a container do.
    @Suite struct NestedOverlayTests {
        /// What is done on a first mount, and must be seen on the second: whiteouts, opaque and renamed directories, copied
        /// files, links and owners.
        private static let script = """
            set -e
            mkdir -p $1/lower/dir/sub $1/lower/gone $1/upper $1/work $1/m
            echo lower >$1/lower/file; echo deep >$1/lower/dir/sub/deep; echo x >$1/lower/gone/x; ln -s file $1/lower/link
            overlay() { mount -t overlay overlay -o lowerdir=$1/lower,upperdir=$1/upper,workdir=$1/work $1/m; }
            overlay $1; cd $1/m
            chown -h 70000:70001 link
            echo more >>file; rm -r gone; mkdir gone; touch gone/new; rm dir/sub/deep; echo made >dir/made
            mv dir moved 2>/dev/null || { cp -a dir moved; rm -r dir; }
            rm file; echo again >file; mknod null c 1 3; chmod 600 moved/made
            show() { cd $1/m; ls -R . | tr '\\n' ' '; cat file moved/made; stat -c '%u:%g %a' link moved/made; }
            show $1 >/first; cd /; umount $1/m; overlay $1; show $1 >/second; cd /; umount $1/m
            cmp /first /second && cat /second
            """

        private static let expected = [
            ".: file gone link moved null  ./gone: new  ./moved: made sub  ./moved/sub: again", "made",
            "70000:70001 777", "0:0 600",
        ]

        private func bundle(_ scene: Scene, at directory: String, _ edit: (inout Spec) -> Void = { _ in }) throws
            -> String
        {
            try scene.bundle(script: "set -- \(directory)\n\(Self.script)") { spec in
                let all = ["CAP_SYS_ADMIN", "CAP_MKNOD", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID"]
                spec.process?.capabilities = Capabilities(bounding: all, effective: all, permitted: all)
                edit(&spec)
            }
        }

        @Test func onTheRootFileSystem() throws {
            try Scene.play { scene in
                let bundle = try bundle(scene, at: "/overlay")
                let outcome = try scene.run(bundle: bundle, global: scene.configuration("files.device_nodes = true"))
                #expect(outcome.lines == Self.expected, "\(outcome.text)\(outcome.errorText)")
            }
        }

        @Test(arguments: ["ext4", "tmpfs", "overlay"]) func onAShare(type: String) throws {
            try Scene.play { scene in
                let host = try scene.makeDirectory("host")
                try Command.shell(
                    type == "tmpfs"
                        ? "mount -t tmpfs none \(host)"
                        : type == "overlay"
                            ? """
                            mkdir \(host)-{l,u,w}; mount -t tmpfs none \(host)-u; mkdir \(host)-u/{u,w}
                            mount -t overlay none -o lowerdir=\(host)-l,upperdir=\(host)-u/u,workdir=\(host)-u/w \(host)
                            """ : "true")
                defer { if type != "ext4" { for path in [host, "\(host)-u"] { umount2(path, Int32(MNT_DETACH)) } } }
                let bundle = try bundle(scene, at: "/share/overlay") {
                    $0.mounts.append(Mount(destination: "/share", type: "bind", source: host, options: ["rbind"]))
                }
                let outcome = try scene.run(bundle: bundle, global: scene.configuration("files.device_nodes = true"))
                #expect(outcome.lines == Self.expected, "\(outcome.text)\(outcome.errorText)")
                // The guest's marks are no marks to the host.
                let marks = try Command.run(
                    "python3", ["-c", "import os, sys; print(os.listxattr(sys.argv[1]))", "\(host)/overlay/upper/gone"])
                #expect(marks.contains("user.martlet.trusted.overlay.opaque"), "\(marks)")
                #expect(!marks.contains("'trusted.overlay.opaque'"), "\(marks)")
            }
        }
    }
}
