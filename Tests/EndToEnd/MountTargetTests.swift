import Glibc
import OCISpec
import Testing

extension Containers {
    /// Where mounts and the working directory go in images whose paths are links, or are missing.
    @Suite struct MountTargetTests {
        /// As runc: a link is followed inside the root, and what it leads to is made.
        @Test(arguments: [false, true]) func targetsThatAreMissingAreMade(readOnlyRoot: Bool) throws {
            try Scene.play { scene in
                let script = """
                    pwd; stat -c '%u %a' .; cat /etc/resolv.conf; readlink /etc/resolv.conf
                    touch /run/x/f /up/g /mnt/dir/h && ls /realrun/x /above /absent/dir
                    grep -c ' /realrun/systemd/resolve/stub-resolv.conf ' /proc/self/mountinfo
                    """
                let resolver = try scene.write("resolver", "nameserver 192.0.2.1\n")
                let bundle = try scene.bundle(script: script) { spec in
                    spec.root?.readonly = readOnlyRoot
                    spec.process?.cwd = "/work/dir"
                    spec.process?.user = User(uid: 0, gid: 0, umask: 0o077)
                    let tmpfs = { Mount(destination: $0, type: "tmpfs", source: "tmpfs") }
                    spec.mounts += [
                        tmpfs("/run/x"), tmpfs("/up"), tmpfs("/mnt/dir"),
                        Mount(
                            destination: "/etc/resolv.conf", type: "bind", source: resolver, options: ["rbind", "ro"]),
                    ]
                }
                let root = "\(bundle)/rootfs"
                for path in ["\(root)/run", "\(root)/mnt"] { rmdir(path) }
                for (target, link) in [
                    ("../run/systemd/resolve/stub-resolv.conf", "etc/resolv.conf"), ("/realrun", "run"),
                    ("../../../above", "up"), ("absent", "mnt"),
                ] { #expect(symlink(target, "\(root)/\(link)") == 0) }
                let outcome = try scene.run(bundle: bundle)
                #expect(outcome.code == 0, "\(outcome.errorText)")
                #expect(
                    outcome.lines == [
                        "/work/dir", "0 755", "nameserver 192.0.2.1", "../run/systemd/resolve/stub-resolv.conf",
                        "/above:", "g", "/absent/dir:", "h", "/realrun/x:", "f", "1",
                    ], "\(outcome.text)\(outcome.errorText)")
                #expect(access("\(bundle)/above", F_OK) != 0 && access("/realrun", F_OK) != 0)
            }
        }
    }
}
