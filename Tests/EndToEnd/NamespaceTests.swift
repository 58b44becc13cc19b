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
                    outcome.errorText.contains("hooks.createContainer[0]: /bin/sh: exited with 3: why"),
                    "\(outcome.errorText)")
            }
        }
    }
}
