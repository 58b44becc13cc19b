import Glibc
import LinuxSystem
import OCISpec
import Testing

extension Containers {
    /// The share under a guest that works it hard, and one that tries to leave it.
    @Suite struct FilesTests {
        /// Random operations for a minute, each result held against a model.
        @Test func randomOperationsMatchTheModel() throws {
            try Scene.play { scene in
                let bundle = try scene.bundle(
                    script: "mkdir /work && fileops /work 60 \(UInt32.random(in: 1...UInt32.max))")
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
    }
}
