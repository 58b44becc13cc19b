import Glibc
import OCISpec
import Testing

extension Containers {
    @Suite struct NamespaceTests {
        /// Users, clocks, a copied directory and hooks in one machine.
        @Test func whatIsTheContainersOwn() throws {
            try Scene.play { scene in
                let script = """
                    id -u; tr -s ' ' </proc/self/uid_map; stat -c %u /bin/busybox; head -c 1 /dev/zero | wc -c
                    hostname own && hostname; mount -t tmpfs t /mnt && echo mounted; cat /sys/class/net/lo/mtu
                    awk '{ print ($1 > 1000000000) }' /proc/uptime; cat /etc/kept; touch /etc/new && echo new
                    cat /tmp/hook; echo >/proc/sys/kernel/msgmax 2>/dev/null || echo kept; ip -o link show lo | grep -c LOWER_UP
                    cat /sys/fs/cgroup/pids.max; echo out >/dev/stdout
                    """
                let bundle = try scene.bundle(script: script) { spec in
                    spec.linux?.namespaces += [.init(.user), .init(.time)]
                    spec.linux?.uidMappings = [.init(containerID: 0, hostID: 100_000, size: 65536)]
                    spec.linux?.gidMappings = [.init(containerID: 0, hostID: 100_000, size: 65536)]
                    spec.linux?.timeOffsets = ["boottime": .init(secs: 1_000_000_000)]
                    spec.linux?.resources = .init()
                    spec.linux?.resources?.pids = .init(limit: 77)
                    let all = Capabilities.names
                    spec.process?.capabilities = Capabilities(bounding: all, effective: all, permitted: all)
                    spec.mounts += [
                        Mount(destination: "/etc", type: "tmpfs", source: "tmpfs", options: ["tmpcopyup"]),
                        Mount(destination: "/tmp", type: "tmpfs", source: "tmpfs", options: ["mode=1777"]),
                    ]
                    spec.hooks = Hooks()
                    spec.hooks?.startContainer = [
                        Hook(
                            path: "/bin/sh", args: ["sh", "-c", "grep -c '\\\"status\\\":\\\"created\\\"' >/tmp/hook"],
                            env: ["PATH=/bin"])
                    ]
                }
                try Command.run("mkdir", ["-p", "\(bundle)/rootfs/etc", "\(bundle)/rootfs/mnt"])
                try scene.write("\(bundle)/rootfs/etc/kept", "as it was\n")
                let outcome = try scene.run(bundle: bundle)
                #expect(outcome.code == 0, "\(outcome.errorText)")
                #expect(
                    outcome.lines == [
                        "0", " 0 100000 65536", "65534", "1", "own", "mounted", "65536", "1", "as it was", "new", "1",
                        "kept", "1", "77", "out",
                    ], "\(outcome.errorText)")
            }
        }

        /// A directory of the host three times: with its own ids, with others, and with the container's.
        @Test func mountsHaveMappedIDs() throws {
            try Scene.play { scene in
                let script = """
                    stat -c %u:%g /own/file /others/file /users/file; touch /users/new && stat -c %u:%g /users/new
                    chown 4:5 /users/new; stat -c %u:%g /own/new
                    """
                let bundle = try scene.bundle(script: script) { spec in
                    spec.linux?.namespaces.append(.init(.user))
                    spec.linux?.uidMappings = [.init(containerID: 0, hostID: 100_000, size: 65536)]
                    spec.linux?.gidMappings = [.init(containerID: 0, hostID: 200_000, size: 65536)]
                    let all = Capabilities.names
                    spec.process?.capabilities = Capabilities(bounding: all, effective: all, permitted: all)
                    spec.mounts += ["/own", "/others", "/users"].map {
                        Mount(destination: $0, type: "bind", source: "source", options: ["bind"])
                    }
                    let last = spec.mounts.count - 1
                    spec.mounts[last].options.append("idmap")
                    spec.mounts[last - 1].uidMappings = [.init(containerID: 0, hostID: 101_000, size: 10)]
                    spec.mounts[last - 1].gidMappings = [.init(containerID: 0, hostID: 202_000, size: 10)]
                }
                let source = "\(bundle)/source"
                try Command.run("mkdir", [source])
                try scene.write("\(source)/file", "")
                #expect(chown("\(source)/file", 1, 2) == 0)
                let outcome = try scene.run(bundle: bundle)
                #expect(
                    outcome.lines == ["65534:65534", "1001:2002", "1:2", "0:0", "65534:65534"], "\(outcome.errorText)")
                var facts = stat()
                #expect(stat("\(source)/new", &facts) == 0 && facts.st_uid == 4 && facts.st_gid == 5)
            }
        }

        /// What is bound is there only in the container.
        @Test func aMountIsTheSourceOfAnother() throws {
            try Scene.play { scene in
                let bundle = try scene.bundle(script: "cat /final/file") { spec in
                    spec.mounts += [("/mnt", "source"), ("/final", "rootfs/mnt/inner"), ("/mnt/out", "rootfs/mnt/out")]
                        .map {
                            Mount(destination: $0, type: "bind", source: $1, options: ["bind"])
                        }
                }
                try Command.run("mkdir", ["-p", "\(bundle)/source/inner"])
                try scene.write("\(bundle)/source/inner/file", "inner\n")
                // A link leads nowhere but to the container's own root.
                #expect(symlink("/run/martlet", "\(bundle)/source/out") == 0)
                let outcome = try scene.run(bundle: bundle)
                #expect(outcome.code != 0 && outcome.errorText.contains("open /mnt/out: "), "\(outcome)")
                unlink("\(bundle)/source/out")
                mkdir("\(bundle)/source/out", 0o755)
                #expect(try scene.run(bundle: bundle).lines.first == "inner")
            }
        }

        @Test func aHookThatFailsEndsTheStart() throws {
            try Scene.play { scene in
                let bundle = try scene.bundle(script: "echo ran") { spec in
                    spec.hooks = Hooks()
                    spec.hooks?.createContainer = [Hook(path: "/bin/sh", args: ["sh", "-c", "echo why >&2; exit 3"])]
                }
                let outcome = try scene.run(bundle: bundle)
                #expect(outcome.code != 0)
                #expect(outcome.text == "")
                #expect(
                    outcome.errorText.contains("error running createContainer hook #0: /bin/sh: exited with 3: why"),
                    "\(outcome.errorText)")
            }
        }
    }
}
