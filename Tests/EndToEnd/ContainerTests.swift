import Glibc
import LinuxSystem
import OCISpec
import Testing

extension Containers {
    @Suite struct ContainerTests {
        /// Other in each run of a kernel.
        private static let bootID = "/proc/sys/kernel/random/boot_id"

        @Test func theKernelIsTheGuests() throws {
            try Scene.play { scene in
                let outcome = try scene.run(
                    bundle: scene.bundle(script: "uname -r; cat /proc/version; echo $$; cat \(Self.bootID)"))
                #expect(outcome.code == 0, "\(outcome.errorText)")
                #expect(outcome.errorText == "")
                try #require(outcome.lines.count == 4, "\(outcome.text)")
                #expect(outcome.lines[1].hasPrefix("Linux version \(outcome.lines[0]) "))
                #expect(outcome.lines[2] == "1", "the first process of its own process id namespace")
                // The versions may be the same.
                #expect(outcome.lines[3] != Leftovers.read(Self.bootID)?.split(separator: "\n").first.map(String.init))
            }
        }

        /// Everything of a process that config.json sets, in one machine.
        @Test func theProcessGetsWhatTheConfigurationSays() throws {
            try Scene.play { scene in
                let script = """
                    hostname; pwd; echo "$A|$B"; umask; id -u; id -g; id -G; ulimit -n; ulimit -Hn
                    grep -E '^(CapBnd|CapEff|NoNewPrivs)' /proc/self/status | tr -s '\\t ' ' '
                    cat /proc/sys/net/ipv4/ip_forward; echo "$0 $1"
                    touch /x 2>&1; cat /data/in; echo out >/data/out; touch /ro/x 2>&1; cat /one
                    cat /proc/kcore | wc -c; grep -c '^[^ ]* /proc/sys [^ ]* ro,' /proc/mounts; ls -A /secret | wc -l
                    ls -l /dev/null | cut -c1; test -c /dev/urandom && echo urandom; df /scratch | tail -1 | cut -d' ' -f1
                    """
                let data = try scene.makeDirectory("data")
                chmod(data, 0o777)
                try scene.write("data/in", "from the host\n")
                let one = try scene.write("one", "one file\n")
                let bundle = try scene.bundle(args: ["/bin/sh", "-c", script, "zero", "first"]) { spec in
                    spec.hostname = "small-host"
                    spec.root?.readonly = true
                    spec.process?.cwd = "/tmp"
                    spec.process?.env += ["A=1 2", "B="]
                    spec.process?.user = User(uid: 1000, gid: 1001, umask: 0o027, additionalGids: [7, 1002])
                    spec.process?.rlimits = [Rlimit(type: "RLIMIT_NOFILE", hard: 500, soft: 400)]
                    spec.process?.capabilities = Capabilities(
                        bounding: ["CAP_CHOWN", "CAP_KILL"], permitted: ["CAP_KILL"])
                    spec.linux?.sysctl = ["net.ipv4.ip_forward": "1"]
                    spec.linux?.maskedPaths.append("/secret")
                    spec.mounts += [
                        Mount(destination: "/data", type: "bind", source: data, options: ["rbind", "rw"]),
                        Mount(destination: "/ro", type: "bind", source: data, options: ["bind", "ro"]),
                        Mount(destination: "/one", type: "bind", source: one, options: ["bind"]),
                        Mount(destination: "/scratch", type: "tmpfs", source: "scratch", options: ["size=1m"]),
                    ]
                }
                for name in ["data", "ro", "scratch", "secret", "secret/thing"] {
                    try Command.run("mkdir", ["\(bundle)/rootfs/\(name)"])
                }
                try scene.write("\(bundle)/rootfs/one", "")
                let outcome = try scene.run(bundle: bundle)
                #expect(outcome.code == 0, "\(outcome.errorText)")
                #expect(
                    outcome.lines == [
                        "small-host", "/tmp", "1 2|", "0027", "1000", "1001", "1001 7 1002", "400", "500",
                        "CapEff: 0000000000000000", "CapBnd: 0000000000000021", "NoNewPrivs: 1",
                        "1", "zero first", "touch: /x: Read-only file system", "from the host",
                        "touch: /ro/x: Read-only file system", "one file", "0", "1", "0", "c", "urandom",
                        "scratch",
                    ], "\(outcome.errorText)")
                #expect(Leftovers.read("\(data)/out") == "out\n")
                let owner = try Command.run("stat", ["-c", "%u:%g %a", "\(data)/out"])
                #expect(owner == "1000:1001 640\n")
            }
        }

        @Test func thePIDFileAndTheLogAreWritten() throws {
            try Scene.play { scene in
                let pidFile = "\(scene.directory)/pid"
                let log = "\(scene.directory)/log"
                let bundle = try scene.bundle(script: "echo up; read line") { spec in
                    spec.process?.apparmorProfile = "a-profile"
                }
                let run = try scene.start(
                    bundle: bundle, global: ["--log", log, "--log-format", "json"], options: ["--pid-file", pidFile],
                    input: .pipe)
                try run.output?.wait(for: "up\n")
                let pid = Int32(Leftovers.read(pidFile) ?? "") ?? 0
                let program = Leftovers.read("/proc/\(pid)/cmdline") ?? ""
                #expect(program.contains("martlet"), "pid file: \(pid), \(program)")
                run.input?.write("\n")
                #expect(try run.finish().code == 0)
                let text = Leftovers.read(log) ?? ""
                #expect(
                    text.contains("\"level\":\"warning\"")
                        && text.contains("process.apparmorProfile: the guest has no"),
                    "\(text)")
            }
        }
    }
}
