import Glibc
import LinuxSystem
import OCISpec
import Testing

extension Containers {
    @Suite(
        .enabled(if: Lab.everything, Lab.isLong),
        .enabled(if: Lab.program("mmdebstrap") != nil, "no mmdebstrap in PATH"))
    struct DebianTests {
        private func bundle(_ scene: Scene, _ script: String, out: String) throws -> String {
            let root = try Rootfs.debianDirectory()
            return try scene.bundle(rootfs: .directory(root), args: ["/bin/bash", "-euc", script]) { spec in
                spec.root?.readonly = true
                // /mnt is in every Debian root.
                spec.mounts.append(Mount(destination: "/mnt", type: "bind", source: out, options: ["rbind"]))
                spec.mounts.append(Mount(destination: "/tmp", type: "tmpfs", source: "tmpfs"))
            }
        }

        @Test func everyFileHasTheHostsContentAndProgramsRun() throws {
            try Scene.play { scene in
                let out = try scene.makeDirectory("out")
                // Below /mnt is what the host bound there: as on a host, it has the root's device number if it has its file system.
                let sums = "find . -xdev -path ./mnt -prune -o -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum"
                let bundle = try bundle(
                    scene,
                    """
                    (cd / && \(sums)) >/mnt/sums
                    apt-get --version | head -n1
                    perl -e 'print join(",", map { $_ * 2 } 1..3), "\\n"'
                    bash -c 'echo "${BASH_VERSINFO[0]} $((6 * 7))"'
                    """, out: out)
                let outcome = try scene.run(bundle: bundle, within: .seconds(240))
                #expect(outcome.code == 0, "\(outcome.errorText)")
                #expect(outcome.lines.count == 3)
                #expect(outcome.lines.first?.hasPrefix("apt 2.") == true, "\(outcome.text)")
                #expect(outcome.lines.dropFirst() == ["2,4,6", "5 42"])
                try Command.shell("cd \(Rootfs.debianDirectory()) && \(sums) >\(scene.directory)/sums")
                let count = try Command.shell("wc -l <\(scene.directory)/sums").filter(\.isNumber)
                #expect(Int(count) ?? 0 > 3000, "\(count) files")
                // What the runtime mounts over or makes in the root is not the image's.
                let difference = try Command.shell("diff \(scene.directory)/sums \(out)/sums | head -n 20 || true")
                #expect(difference == "")
            }
        }

        @Test func tenThousandFilesAndOneBigOne() throws {
            try Scene.play { scene in
                let out = try scene.makeDirectory("out")
                let size = Lab.everything ? 1 << 30 : 256 << 20
                try Command.shell(
                    """
                    cd \(scene.directory); mkdir tree; cd tree
                    for d in {0..99}; do mkdir $d; for f in {0..99}; do echo $d $f >$d/$f; done; done
                    cd ..; tar cf out/tree.tar tree; rm -r tree; cp \(Program.path("pattern")) out/pattern
                    """)
                let bundle = try bundle(
                    scene,
                    """
                    cd /mnt
                    tar xf tree.tar
                    find tree -type f | wc -l
                    find tree -type f -print0 | LC_ALL=C sort -z | xargs -0 cat | sha256sum
                    rm -r tree; ls
                    ./pattern 3 \(size) big
                    """, out: out)
                let outcome = try scene.run(bundle: bundle, within: .seconds(300))
                #expect(outcome.code == 0, "\(outcome.errorText)")
                let content = try Command.shell(
                    "cd \(scene.directory); tar xf out/tree.tar; find tree -type f -print0 | LC_ALL=C sort -z | xargs -0 cat | sha256sum"
                )
                #expect(outcome.lines == ["10000", content.filter { $0 != "\n" }, "pattern", "tree.tar"])
                let hashes = try Command.shell(
                    "sha256sum <\(out)/big; \(out)/pattern 3 \(size) | sha256sum", within: .seconds(120))
                let lines = hashes.split(separator: "\n")
                #expect(lines.count == 2 && lines.first == lines.last)
            }
        }
    }
}
