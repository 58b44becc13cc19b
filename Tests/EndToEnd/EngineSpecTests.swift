import Glibc
import LinuxSystem
import OCISpec
import Testing

extension Containers {
    /// Configurations that engines write (Tests/EndToEnd/Specs): podman 4.3, docker 20.10, ctr and the CRI plugin of
    /// containerd 1.6. They are as they were written, but for the paths of the machine: what was there is below /engine.
    @Suite struct EngineSpecTests {
        private static let directory = "\(Lab.repository)/Tests/EndToEnd/Specs"
        static let names = Leftovers.list(directory).filter { $0.hasSuffix(".json") }.sorted()
        private static let everyday = [
            "cri-sandbox-full.json", "ctr-seccomp.json", "docker-volume.json", "podman-limits.json",
            "ctr-privileged.json",
        ]

        /// What the container says of itself.
        private static let script = """
            echo hostname $(hostname)
            grep '^Seccomp:' /proc/self/status | tr -s '\\t' ' '
            echo files $(ulimit -n)
            test -e /sys/fs/cgroup/cgroup.procs && echo cgroup
            grep -q ' /dev/mqueue mqueue ' /proc/mounts && echo mqueue
            echo kcore $(head -c 1 /proc/kcore 2>/dev/null | wc -c)
            touch /made 2>/dev/null || echo readonly
            id -u
            for path in $BOUND; do grep -qs host $path || grep -qs host $path/file || echo $path is missing; done
            """

        @Test(arguments: Lab.everything ? names : everyday) func itStarts(_ name: String) throws {
            try Scene.play { scene in
                let text = try #require(Leftovers.read("\(Self.directory)/\(name)"))
                var spec = try JSON.decode(Spec.self, from: Array(text.utf8), file: name)
                try place(&spec, in: scene)
                let bundle = try scene.bundle(args: []) { $0 = spec }
                let id = scene.newID()
                let lines: [String]
                if spec.process?.terminal == true {
                    let pty = try Pty(rows: 24, columns: 80)
                    let screen = try Collector(pty.master)
                    let run = try Command(
                        "setsid", ["-c", Lab.martlet] + scene.runArguments(bundle: bundle, id: id),
                        input: .descriptor(pty.slave), output: .descriptor(pty.slave))
                    let outcome = try run.finish()
                    #expect(outcome.code == 0, "\(outcome.errorText)")
                    lines = screen.text.split { $0.isNewline }.map(String.init)
                } else {
                    let global =
                        name == "ctr-nethost.json" ? try scene.configuration("spec.host_namespaces = \"warn\"") : []
                    let outcome = try scene.run(bundle: bundle, id: id, global: global)
                    #expect(outcome.code == 0, "\(outcome.errorText)")
                    lines = outcome.lines
                }
                #expect(lines == expected(spec, id))
            }
        }

        /// Makes what the specification finds on an engine's machine, and names it by its path in the scene.
        private func place(_ spec: inout Spec, in scene: Scene) throws {
            _ = try scene.makeDirectory("engine")
            let own = { (path: String) in path.hasPrefix("/engine/") ? scene.directory + path : path }
            for index in spec.mounts.indices where spec.mounts[index].source.hasPrefix("/engine/") {
                let path = own(spec.mounts[index].source)
                spec.mounts[index].source = path
                if ["data", "named", "shm"].contains(path.split(separator: "/").last) {
                    mkdir(path, 0o777)
                    try scene.write("\(path)/file", "of the host\n")
                } else {
                    // One of them is a program: docker's init, which runs another.
                    try scene.write(path, "#!/bin/sh\n# of the host\nshift; exec \"$@\"\n")
                    chmod(path, 0o755)
                }
            }
            for index in spec.hooks?.prestart.indices ?? 0..<0 {
                let program = try scene.write("engine/hook", "#!/bin/sh\ncat >/dev/null\n")
                chmod(program, 0o755)
                spec.hooks?.prestart[index].path = program
            }
            // A pod's members are started by an engine that has started the pod: on its own, each makes its own namespaces.
            for index in spec.linux?.namespaces.indices ?? 0..<0 { spec.linux?.namespaces[index].path = "" }
            spec.annotations["io.kubernetes.cri.sandbox-id"] = nil
            spec.linux?.cgroupsPath = "/\(scene.newID())"
            spec.root?.path = try Rootfs.busybox.place(in: scene.makeDirectory("root-of-engine"))
            if spec.root?.path == "rootfs" { spec.root?.path = "\(scene.directory)/root-of-engine/rootfs" }
            let prefix = spec.process?.args.firstIndex(of: "--").map { Array(spec.process?.args[...$0] ?? []) } ?? []
            let bound = spec.mounts.filter { $0.source.hasPrefix(scene.directory) }.map(\.destination)
            spec.process?.args = prefix + ["/bin/sh", "-c", Self.script]
            spec.process?.env.append("BOUND=" + bound.joined(separator: " "))
        }

        private func expected(_ spec: Spec, _ id: String) -> [String] {
            let files = spec.process?.rlimits.first { $0.type == "RLIMIT_NOFILE" }?.soft ?? 1024
            let name = spec.hostname.isEmpty ? id : spec.hostname
            return ["hostname \(name)", "Seccomp: \(spec.linux?.seccomp == nil ? 0 : 2)", "files \(files)"]
                + (spec.mounts.contains { $0.type == "cgroup" } ? ["cgroup"] : [])
                + (spec.mounts.contains { $0.type == "mqueue" } ? ["mqueue"] : [])
                + ["kcore 0"] + (spec.root?.readonly == true || spec.process?.user.uid != 0 ? ["readonly"] : [])
                + ["\(spec.process?.user.uid ?? 0)"]
        }
    }
}
