import Glibc
import LinuxSystem
import OCISpec
import Testing

extension Containers {
    /// The share under a guest that works it hard, and one that tries to leave it.
    @Suite struct FilesTests {
        /// Random operations for some time, each result held against a model.
        @Test func randomOperationsMatchTheModel() throws {
            try Scene.play { scene in
                let seconds = Lab.everything ? 60 : 15
                let bundle = try scene.bundle(
                    script: "mkdir /work && fileops /work \(seconds) \(UInt32.random(in: 1...UInt32.max))")
                try Program.install("fileops", in: bundle)
                let outcome = try scene.run(bundle: bundle, within: .seconds(150))
                #expect(outcome.code == 0, "\(outcome.text)\n\(outcome.errorText)")
                #expect(outcome.text.hasPrefix("ok "), "\(outcome.text)")
            }
        }

        @Test func symbolicLinksEndInsideTheRoot() throws {
            try Scene.play { scene in
                let secret = try scene.write("secret", "of the host\n")
                let script = """
                    cat /shadow /up /absolute /in/deep 2>&1; echo "$?"
                    cat /proc/1/root/etc/shadow 2>&1 | head -c 300
                    ln -s ../../../../../../../..\(secret) /made; cat /made 2>&1
                    echo mine > /etc/shadow; cat /shadow
                    """
                let bundle = try scene.bundle(script: script)
                try Command.shell(
                    """
                    cd \(bundle)/rootfs
                    ln -s /etc/shadow shadow; ln -s ../../../../../../../..\(secret) up; ln -s \(secret) absolute
                    mkdir in; ln -s ../../../../..\(secret) in/deep
                    """)
                let before = try Command.run("stat", ["-c", "%Y %s %i", "/etc/shadow"])
                let outcome = try scene.run(bundle: bundle)
                #expect(!outcome.text.contains("of the host"), "\(outcome.text)")
                #expect(outcome.lines.last == "mine", "\(outcome.text)")
                #expect(Leftovers.read("\(bundle)/rootfs/etc/shadow") == "mine\n")
                #expect(try Command.run("stat", ["-c", "%Y %s %i", "/etc/shadow"]) == before)
            }
        }

        /// Two host file systems that use the same inode number are told apart by their device numbers in the guest.
        @Test func inodesOfTwoFileSystemsAreDistinct() throws {
            try Scene.play { scene in
                let places = try ["one", "two"].map { try scene.makeDirectory($0) }
                for place in places {
                    try Command.shell("mount -t tmpfs tmpfs \(place); echo \(place) > \(place)/file")
                }
                defer {
                    for place in places { umount2(place, 0) }
                }
                let inodes = try places.map { try Command.run("stat", ["-c", "%i", "\($0)/file"]) }
                #expect(inodes[0] == inodes[1], "the host's two tmpfs number alike")
                let bundle = try scene.bundle(script: "stat -c '%d:%i' /a/file /b/file; cat /a/file /b/file") { spec in
                    spec.mounts += [
                        Mount(destination: "/a", type: "bind", source: places[0], options: ["bind"]),
                        Mount(destination: "/b", type: "bind", source: places[1], options: ["bind"]),
                    ]
                }
                let outcome = try scene.run(bundle: bundle)
                for place in places { #expect(umount2(place, 0) == 0) }
                try #require(outcome.lines.count == 4, "\(outcome.text)\(outcome.errorText)")
                #expect(outcome.lines[0] != outcome.lines[1])
                #expect(outcome.lines[2...] == [places[0], places[1]])
            }
        }

        /// Modes without permissions, files without a name, times, owners and names that servers have got wrong.
        @Test func unusualFilesAreKept() throws {
            try Scene.play { scene in
                let host = try scene.makeDirectory("host")
                try Command.shell(
                    """
                    cd \(host); chmod 1777 .; mkdir many; touch -d @-1 old; seq 20000 | (cd many; xargs touch)
                    """)
                let script = """
                    cd /host
                    for mask in 0777 0577 0333; do (umask $mask; echo $mask >mask-$mask) || echo failed; done
                    echo old >a; echo new >b; exec 3<a; mv b a; cat <&3; cat a
                    exec 4<>unnamed; rm unnamed; chmod 600 /proc/self/fd/4; truncate -s 5 /proc/self/fd/4
                    stat -L -c '%a %s %h' /proc/self/fd/4
                    ls many | wc -l; ls -lR many | wc -l; stat -c %Y old; touch -r old older
                    if [ $(id -u) = 0 ]; then ln -s x owned; chown -h 70000:70001 owned; fi
                    echo long >$(printf '%0255d' 7); echo bytes >$(printf 'a\\377b')
                    ln -s $(printf '%04095d' 7) link; readlink link | wc -c
                    """
                for user in [UInt32(0), 1000] {
                    let bundle = try scene.bundle(script: script) { spec in
                        spec.process?.user = User(uid: user, gid: user)
                        if user == 0 {
                            spec.process?.capabilities = Capabilities(
                                bounding: ["CAP_CHOWN"], effective: ["CAP_CHOWN"], permitted: ["CAP_CHOWN"])
                        }
                        spec.mounts.append(
                            Mount(destination: "/host", type: "bind", source: host, options: ["rbind"]))
                    }
                    let outcome = try scene.run(bundle: bundle, within: .seconds(200))
                    let expected = ["old", "new", "600 5 0", "20000", "20002", "-1", "4096"]
                    #expect(outcome.lines == expected, "uid \(user): \(outcome.text)\(outcome.errorText)")
                    let seen = try Command.run(
                        "python3",
                        [
                            "-c",
                            """
                            import os, sys
                            os.chdir(sys.argv[1])
                            for mask in ["0777", "0577", "0333"]:
                                print("%o" % (os.stat("mask-" + mask).st_mode & 0o7777), open("mask-" + mask).read().strip())
                            print(os.stat("older").st_mtime, open(b"a\\xffb").read().strip(), len(os.readlink("link")))
                            print(open("7".rjust(255, "0")).read().strip())
                            if os.path.lexists("owned"): print(os.lstat("owned").st_uid, os.lstat("owned").st_gid)
                            for name in os.listdir(b"."):
                                if name not in (b"many", b"old"): os.unlink(name)
                            """, host,
                        ])
                    let lines = ["0 0777", "200 0577", "444 0333", "-1.0 bytes 4095", "long"]
                    #expect(
                        seen.split(separator: "\n").map(String.init) == lines + (user == 0 ? ["70000 70001"] : []),
                        "uid \(user): \(seen)")
                }
            }
        }
    }
}
