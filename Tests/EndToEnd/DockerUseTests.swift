import Glibc
import LinuxSystem
import Testing

extension Containers {
    /// What users of docker do, with the shim and with the OCI command line.
    @Suite(.enabled(if: Docker.obstacle == nil, "\(Docker.obstacle ?? "")"))
    struct DockerUseTests {
        private static let loop = "echo ready; trap 'echo bye; exit 5' TERM; while :; do sleep 0.2; done"

        /// Goes to the container's cgroup in the guest; with an engine on cgroup v1 it is not the root of what is mounted.
        private static let limits = "cd /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)"

        @Test(arguments: Docker.Runtime.some) func aRunningContainerIsUsed(_ runtime: Docker.Runtime) throws {
            try Docker.play(runtime: runtime) { docker, scene in
                let name = scene.newID()
                let mounted = try scene.makeDirectory("mounted")
                try scene.write("\(mounted)/file", "of the host\n")
                try docker.succeed("volume", "create", "data")
                try docker.succeed(
                    "run", "-d", "--init", "--name", name, "-p", "127.0.0.1:8080:80", "-p", "[::1]:8080:80", "-p",
                    "10.99.0.1:8080:80", "-p", "127.0.0.1:5353:53/udp", "-v", "\(Program.path("sockets")):/sockets:ro",
                    "-v", "data:/data", "-v",
                    "\(mounted):/mounted:ro",
                    "--tmpfs", "/scratch:size=8m", "--shm-size", "16m", "--hostname", "box", "--add-host",
                    "other:10.1.2.3",
                    "--dns", "10.9.8.7", "--memory", "128m", "--cpus", "0.5", "--pids-limit", "60", "--ulimit",
                    "nofile=333:444", "--sysctl", "net.ipv4.ip_unprivileged_port_start=77", "--cap-drop", "NET_RAW",
                    "--group-add", "1234", Docker.image, "/bin/sh", "-c", Self.loop)

                func inside(_ script: String) throws -> String {
                    try docker.succeed("exec", name, "/bin/sh", "-c", script)
                }
                #expect(
                    try inside("cat /mounted/file; touch /mounted/x 2>&1 | grep -o 'Read-only'")
                        == "of the host\nRead-only\n")
                #expect(try inside("df -m /scratch /dev/shm | awk 'NR>1{print $2}'") == "8\n16\n")
                #expect(
                    try inside("hostname; grep other /etc/hosts; cat /etc/resolv.conf | grep 10.9").contains("10.1.2.3")
                )
                #expect(
                    try inside("ulimit -n; ulimit -Hn; cat /proc/sys/net/ipv4/ip_unprivileged_port_start")
                        == "333\n444\n77\n")
                #expect(
                    try inside("\(Self.limits); cat memory.max pids.max cpu.max")
                        == "134217728\n60\n50000 100000\n")
                // Who takes the ends of orphans, and passes signals on.
                #expect(
                    try inside("cat /proc/1/comm; (sleep 0.1 &); sleep 0.5; ps -o stat | grep -c Z; true")
                        == "docker-init\n0\n")
                #expect(try inside("id -G").split(separator: " ").map { $0.filter(\.isNumber) }.contains("1234"))

                // exec in its forms.
                let user = try docker.succeed(
                    "exec", "-u", "65534:65534", "-w", "/tmp", "-e", "A=b", name, "/bin/sh", "-c", "id -u; pwd; echo $A"
                )
                #expect(user == "65534\n/tmp\nb\n")
                try docker.succeed("exec", "-d", name, "/bin/sh", "-c", "echo detached > /data/file")
                let input = try docker.begin(["exec", "-i", name, "/bin/cat"], input: "typed\n")
                try input.output?.wait(for: "typed\n")
                input.input?.close()
                #expect(try input.finish().code == 0)

                try Self.expectTerminal(docker, ["exec", "-it", name], (24, 70), then: (25, 71), code: 4)
                try Self.expectServices(of: name, docker)

                // Files, both ways.
                let file = try scene.write("copied", "from the host\n")
                try docker.succeed("cp", file, "\(name):/tmp/copied")
                #expect(try inside("cat /tmp/copied; cat /data/file") == "from the host\ndetached\n")
                try docker.succeed("cp", "\(name):/data/file", "\(scene.directory)/back")
                #expect(Leftovers.read("\(scene.directory)/back") == "detached\n")

                // What it is doing.
                let top = try docker.succeed("top", name, "-o", "pid,args")
                #expect(top.contains("container ") && top.contains(" pod "), "\(top)")
                let stats = try docker.succeed("stats", "--no-stream", "--format", "{{.PIDs}} {{.MemUsage}}", name)
                #expect(stats.contains("MiB"), "\(stats)")
                try docker.succeed("pause", name)
                #expect(try docker.succeed("ps", "--format", "{{.Status}}", "-f", "name=\(name)").contains("Paused"))
                try docker.succeed("unpause", name)
                try docker.succeed("update", "--memory", "96m", "--memory-swap", "96m", "--pids-limit", "50", name)
                #expect(try inside("\(Self.limits); cat memory.max pids.max") == "100663296\n50\n")
                #expect(try docker.succeed("diff", name).contains("A /tmp/copied"))
                try docker.succeed("rename", name, "\(name)-b")
                try docker.succeed("commit", "\(name)-b", "committed")
                #expect(try docker.succeed("run", "--rm", "committed", "/bin/cat", "/tmp/copied") == "from the host\n")
                try docker.succeed("export", "-o", "\(scene.directory)/export.tar", "\(name)-b")

                // To its end.
                let following = try docker.begin(["logs", "-f", "\(name)-b"])
                try following.output?.wait(for: "ready\n")
                let attached = try docker.begin(["attach", "--sig-proxy=false", "\(name)-b"])
                let waiting = try docker.begin(["wait", "\(name)-b"])
                usleep(500_000)
                try docker.succeed("kill", "-s", "TERM", "\(name)-b")
                #expect(try waiting.finish().text == "5\n")
                #expect(try following.finish().text == "ready\nbye\n")
                #expect(try attached.finish().text == "bye\n")
                try docker.succeed("restart", "\(name)-b")
                try docker.succeed("stop", "-t", "20", "\(name)-b")
                try docker.succeed("rm", "\(name)-b")
                try docker.succeed("volume", "rm", "data")
            }
        }

        /// A shell at a person's terminal, which changes its size.
        ///
        /// - Parameters:
        ///   - arguments: of docker.
        ///   - terminal: the name of the shell's terminal in the container.
        private static func expectTerminal(
            _ docker: Docker, _ arguments: [String], _ size: (rows: UInt16, columns: UInt16),
            then next: (rows: UInt16, columns: UInt16), terminal name: String = "/dev/pts/", code: Int32
        ) throws {
            let terminal = try Pty(rows: size.rows, columns: size.columns)
            let (screen, keys) = (try Collector(terminal.master), Writer(terminal.master))
            let shell = try docker.begin(arguments + ["/bin/sh"], terminal: terminal.slave)
            try screen.wait(for: "# ")
            keys.write("stty size; tty\n")
            try screen.wait(for: "\(size.rows) \(size.columns)")
            try screen.wait(for: name)
            try terminal.resize(rows: next.rows, columns: next.columns)
            usleep(500_000)
            keys.write("stty size\n")
            try screen.wait(for: "\(next.rows) \(next.columns)")
            keys.write("exit \(code)\n")
            #expect(try shell.finish().code == code)
        }

        /// Published ports: from the host by IPv4 and IPv6, from another computer, over UDP. docker's proxy takes connections
        /// before anything listens in the container.
        private static func expectServices(of name: String, _ docker: Docker) throws {
            try docker.succeed("exec", "-d", name, "nc", "-ll", "-p", "80", "-e", "/bin/echo", "served")
            try docker.succeed("exec", "-d", name, "/sockets", "answer", "53")
            func ask(_ address: String) -> String {
                "for i in $(seq 100); do busybox nc -w 2 \(address) 8080 </dev/null | grep . && exit; sleep 0.1; done"
            }
            #expect(try docker.onHost(ask("127.0.0.1")) == "served\n")
            #expect(try docker.onHost(ask("::1")) == "served\n")
            #expect(try docker.elsewhere(ask("10.99.0.1")) == "served\n")
            let datagram = """
                for i in $(seq 20); do
                    bash -c 'exec 3<>/dev/udp/127.0.0.1/5353; echo datagram >&3; timeout 1 head -n 1 <&3' | grep . && exit
                done
                """
            #expect(try docker.onHost(datagram) == "datagram\n")
        }

        @Test func optionsOfARunHold() throws {
            try Docker.play(runtime: .commandLine) { docker, scene in
                try Self.expectTerminal(
                    docker, ["run", "--rm", "-it", Docker.image], (30, 90), then: (40, 100), terminal: "/dev/pts/0",
                    code: 3)

                let text = String(repeating: "0123456789abcde\n", count: 100_000)
                let sum = try docker.begin(
                    ["run", "--rm", "-i", Docker.image, "/bin/sh", "-c", "cat | md5sum"], input: text)
                sum.input?.close()
                #expect(try sum.finish().text == "b5212fc399471933739a26d1f5ddabd3  -\n")

                #expect(
                    try docker.succeed(
                        "run", "--rm", "--read-only", Docker.image, "/bin/sh", "-c", "touch /x 2>&1 || true"
                    )
                    .contains("Read-only file system"))
                let limited = try docker.succeed(
                    "run", "--rm", "--user", "1000:1000", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
                    Docker.image,
                    "/bin/sh", "-c", "id -u; grep -E 'CapBnd|NoNewPrivs' /proc/self/status")
                #expect(
                    limited.contains("1000") && limited.contains("CapBnd:\t0000000000000000")
                        && limited.contains("NoNewPrivs:\t1"))
                let added = try docker.succeed(
                    "run", "--rm", "--cap-add", "SYS_ADMIN", Docker.image, "/bin/mount", "-t", "tmpfs", "x", "/tmp")
                #expect(added == "")
                // Ends badly twice, then stays ended.
                let restarted = scene.newID()
                try docker.succeed(
                    "run", "-d", "--name", restarted, "--restart", "on-failure:1", Docker.image, "/bin/sh", "-c",
                    "echo run; exit 4")
                let end = ContinuousClock.now + .seconds(40) * Lab.patience
                while try docker.succeed("logs", restarted) != "run\nrun\n", ContinuousClock.now < end {
                    usleep(200_000)
                }
                #expect(try docker.succeed("logs", restarted) == "run\nrun\n")
                try docker.succeed("rm", "-f", restarted)
                // A health check, which fails at first.
                let healthy = scene.newID()
                try docker.succeed(
                    "run", "-d", "--name", healthy, "--health-cmd", "exec 2>&1; echo seen; cat /ok",
                    "--health-interval", "500ms",
                    "--health-retries", "2", Docker.image, "/bin/sleep", "1000")
                func wait(for health: String) throws {
                    let end = ContinuousClock.now + .seconds(40) * Lab.patience
                    func current() throws -> String {
                        try docker.succeed("inspect", "-f", "{{.State.Health.Status}}", healthy).trimmed
                    }
                    while try current() != health, ContinuousClock.now < end { usleep(200_000) }
                    #expect(try current() == health)
                }
                try wait(for: "unhealthy")
                let log = try docker.succeed("inspect", "-f", "{{json (index .State.Health.Log 0)}}", healthy)
                #expect(log.contains(#""ExitCode":1,"Output":"seen\ncat: can't open"#), "\(log)")
                try docker.succeed("exec", healthy, "touch", "/ok")
                try wait(for: "healthy")
                try docker.succeed("rm", "-f", healthy)
            }
        }

        /// Two containers on an interface of the host, with addresses and hardware addresses of their own.
        @Test(.enabled(if: Lab.everything, "macvlans are tested by the interface in NetworkTests (MARTLET_TEST_ALL)"))
        func aMacvlanNetwork() throws {
            try Docker.play { docker, scene in
                let (one, two) = (scene.newID(), scene.newID())
                _ = try docker.onHost(
                    "ip link add wire type veth peer name end; ip link set wire up; ip link set end up")
                try docker.succeed(
                    "network", "create", "--driver", "macvlan", "--opt", "parent=wire", "--subnet", "172.29.0.0/24",
                    "lan")
                for (id, address) in [(one, "172.29.0.11"), (two, "172.29.0.12")] {
                    try docker.succeed(
                        "run", "-d", "--name", id, "--network", "lan", "--ip", address, Docker.image, "/bin/nc", "-ll",
                        "-p", "5000",
                        "-e", "/bin/echo", address)
                }
                for (id, other) in [(one, "172.29.0.12"), (two, "172.29.0.11")] {
                    let ask = "for i in $(seq 50); do nc -w 2 \(other) 5000 </dev/null && exit; sleep 0.2; done; exit 1"
                    #expect(try docker.succeed("exec", id, "/bin/sh", "-c", ask) == "\(other)\n")
                }
                try docker.succeed("rm", "--force", one, two)
                try docker.succeed("network", "rm", "lan")
            }
        }

        /// Three services as compose makes them, and networks that are joined and left while they run.
        @Test(arguments: Docker.Runtime.some) func servicesFindEachOther(_ runtime: Docker.Runtime) throws {
            try Docker.play(runtime: runtime) { docker, scene in
                try docker.succeed("network", "create", "--subnet", "172.30.0.0/24", "front")
                try docker.succeed("network", "create", "--subnet", "172.31.0.0/24", "back")
                let (web, worker, base) = (scene.newID(), scene.newID(), scene.newID())
                func ask(_ name: String, _ port: Int) -> String {
                    "for i in $(seq 50); do nc -w 2 \(name) \(port) </dev/null && exit; sleep 0.2; done; exit 1"
                }
                try docker.succeed(
                    "run", "-d", "--name", base, "--network", "back", "--network-alias", "db", "--ip", "172.31.0.77",
                    "--mac-address", "02:42:ac:1f:00:4d", Docker.image, "/bin/nc", "-ll", "-p", "5432", "-e",
                    "/bin/echo",
                    "base")
                try docker.succeed(
                    "run", "-d", "--name", worker, "--network", "back", Docker.image, "/bin/nc", "-ll", "-p", "8000",
                    "-e", "/bin/sh", "-c", "echo worker; \(ask("db", 5432))")
                try docker.succeed("run", "-d", "--name", web, "--network", "front", Docker.image, "/bin/sleep", "1000")
                let address = try docker.succeed("exec", base, "ip", "addr", "show", "eth0")
                #expect(address.contains("02:42:ac:1f:00:4d") && address.contains("172.31.0.77/24"), "\(address)")
                let addresses = "ip -o -4 addr | grep -c eth"
                #expect(
                    try docker.run("exec", web, "nc", "-w", "2", "172.31.0.77", "5432").code != 0, "not of that network"
                )

                // Two networks on one container.
                try docker.succeed("network", "connect", "back", web)
                #expect(try docker.succeed("exec", web, "/bin/sh", "-c", ask(worker, 8000)) == "worker\nbase\n")
                #expect(try docker.succeed("exec", web, "/bin/sh", "-c", addresses) == "2\n")
                // Another machine under the same name.
                try docker.succeed("restart", "-t", "0", base)
                #expect(try docker.succeed("exec", web, "/bin/sh", "-c", ask(worker, 8000)) == "worker\nbase\n")
                try docker.succeed("network", "disconnect", "back", web)
                let gone = "for i in $(seq 50); do [ $(\(addresses)) = 1 ] && echo one && exit; sleep 0.1; done"
                #expect(try docker.succeed("exec", web, "/bin/sh", "-c", gone) == "one\n")
                #expect(try docker.run("exec", web, "nc", "-w", "2", base, "5432").code != 0)
                try docker.succeed("rm", "-f", web, worker, base)
                try docker.succeed("network", "rm", "front", "back")
            }
        }
    }
}
