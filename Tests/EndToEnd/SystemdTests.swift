import Glibc
import LinuxSystem
import OCISpec
import Testing

extension Containers {
    /// Debian's systemd as a container's first process.
    @Suite(
        .enabled(if: Lab.everything, Lab.isLong),
        .enabled(if: Rootfs.systemdObstacle == nil, "\(Rootfs.systemdObstacle ?? "")"))
    struct SystemdTests {
        /// The configuration of `podman run`, with what `--systemd=always` adds: on a host with version 2 of the cgroups, and
        /// with version 1, where podman binds the host's hierarchy.
        @Test(arguments: [2, 1]) func systemdRunsAsPodmanStartsIt(version: Int) throws {
            try Containerd.play { containerd, scene in
                let file = "\(Lab.repository)/Tests/EndToEnd/Specs/podman-run.json"
                let text = try #require(Leftovers.read(file))
                let written = try JSON.decode(Spec.self, from: Array(text.utf8), file: file)
                let system = try scene.makeDirectory("system")
                let root = "\(system)/\(try Rootfs.systemd.place(in: system))"
                let bundle = try scene.bundle(rootfs: .directory(root), args: []) { spec in
                    spec = written
                    spec.root = Root(path: root)
                    spec.process?.args = ["/sbin/init"]
                    spec.process?.env = ["container=podman", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
                    spec.mounts.removeAll { $0.source.hasPrefix("/engine/") }
                    for path in ["/dev/shm", "/run", "/run/lock", "/tmp", "/var/log/journal"] {
                        let options = ["rw", "rprivate", "nosuid", "nodev", "tmpcopyup", "size=65536k", "mode=755"]
                        spec.mounts.append(Mount(destination: path, type: "tmpfs", source: "tmpfs", options: options))
                    }
                    if version == 2 {
                        spec.mounts.removeAll { $0.destination == "/sys/fs/cgroup" }
                        spec.mounts.append(
                            Mount(
                                destination: "/sys/fs/cgroup", type: "cgroup", source: "cgroup",
                                options: ["private", "rw"]))
                        spec.linux?.namespaces.append(.init(.cgroup))
                    } else {
                        spec.mounts.append(
                            Mount(
                                destination: "/sys/fs/cgroup/systemd", type: "bind", source: "/sys/fs/cgroup/systemd",
                                options: ["bind", "rprivate"]))
                    }
                    spec.linux?.cgroupsPath = "/\(scene.newID())"
                }
                let (id, log) = (scene.newID(), "\(scene.directory)/output")
                try containerd.begin(Containerd.run(["-d", "--log-uri", "file://\(log)"], id, bundle: bundle))
                    .finishWell()
                func exec(_ script: String) throws -> Outcome {
                    try containerd.begin(
                        ["task", "exec", "--exec-id", "e\(UInt32.random(in: 0 ... .max))", id, "/bin/sh", "-c", script])
                        .finish(within: .seconds(120))
                }
                // It answers once its socket is there.
                let state = try exec(
                    """
                    for i in $(seq 300); do test -S /run/systemd/private && break; sleep 0.1; done
                    systemctl is-system-running --wait || { systemctl --failed; journalctl --no-pager | tail -n 80; }
                    """)
                #expect(state.text == "running\n", "\(state.text)\(state.errorText)\(Leftovers.read(log) ?? "")")
                // Its cgroup is below the container's, which has no processes any more.
                let groups = try exec("cat /proc/1/cgroup /proc/self/cgroup")
                #expect(
                    groups.lines.allSatisfy { $0.hasSuffix("/init.scope") } && groups.lines.count == 2, "\(groups.text)"
                )
                let unit = try exec(
                    """
                    echo 'cat /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)/memory.max >/max' >/script
                    systemd-run --wait -q -p MemoryMax=32M sh /script; cat /max
                    """)
                #expect(unit.text == "33554432\n", "\(unit.text)\(unit.errorText)")
                // The signal by which systemd shuts down.
                try containerd.succeed("task", "kill", "--signal", "SIGRTMIN+3", id)
                try containerd.wait(for: "STOPPED", of: id, within: .seconds(60))
                try containerd.succeed("task", "rm", id)
                try containerd.succeed("container", "rm", id)
            }
        }
    }
}
