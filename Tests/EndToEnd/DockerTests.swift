import Glibc
import LinuxSystem
import Testing

extension Containers {
    /// dockerd with Martlet as its default runtime: by the shim, and by the command line.
    @Suite(.enabled(if: Docker.obstacle == nil, "\(Docker.obstacle ?? "")"))
    struct DockerTests {
        /// The network is set up by a hook that dockerd names by its argv[0].
        @Test(arguments: Docker.ways) func aContainerRunsOnTheBridge(_ way: Docker.Way) throws {
            try Docker.play(runtime: way.runtime, release: way.release) { docker, scene in
                let script = """
                    echo out; echo err >&2
                    ip route | grep '^default'
                    ping -c 1 -w 10 172.17.0.1 >/dev/null && echo reached
                    cat /etc/hostname; exit 7
                    """
                let outcome = try docker.run(
                    "run", "--rm", "--hostname", "web", Docker.image, "/bin/sh", "-c", script)
                #expect(outcome.code == 7, "\(outcome.errorText)\(docker.log.suffix(2000))")
                #expect(outcome.errorText == "err\n")
                #expect(outcome.lines.first == "out" && outcome.lines.suffix(2) == ["reached", "web"])
                #expect(outcome.text.contains("default via 172.17.0.1 dev eth0"), "\(outcome.text)")
                let missing = try docker.run("run", "--rm", Docker.image, "/bin/none")
                #expect(missing.code != 0 && missing.errorText.contains("/bin/none"), "\(missing.errorText)")
                let alone = try docker.run("run", "--rm", "--network", "none", Docker.image, "ip", "-o", "link")
                #expect(alone.lines.count == 1 && alone.text.contains("lo:"), "\(alone.text)\(alone.errorText)")
            }
        }

        @Test(arguments: Docker.ways) func aContainerIsUsed(_ way: Docker.Way) throws {
            try Docker.play(runtime: way.runtime, release: way.release) { docker, scene in
                let name = scene.newID()
                try docker.succeed(
                    "run", "-d", "--name", name, Docker.image, "/bin/sh", "-c",
                    "echo ready; trap 'exit 5' TERM; while :; do sleep 0.2; done")
                let exec = try docker.run("exec", name, "/bin/sh", "-c", "echo out; echo err >&2; exit 3")
                #expect(exec.code == 3 && exec.text == "out\n" && exec.errorText == "err\n", "\(exec.errorText)")
                let echo = try docker.begin(["exec", "-i", name, "/bin/cat"], input: "typed\n")
                try echo.output?.wait(for: "typed\n")
                echo.input?.close()
                #expect(try echo.finish().code == 0)
                let none = try docker.run("exec", name, "/bin/none")
                #expect(none.code != 0 && (none.text + none.errorText).contains("/bin/none"))

                // The container's process on the host, and no other.
                let pid = try docker.succeed("inspect", "-f", "{{.State.Pid}}", name).trimmed
                let top = try docker.succeed("top", name, "-o", "pid,args").split(separator: "\n")
                #expect(top.count == 2 && top.last?.split(separator: " ").first == pid[...], "\(top)")
                #expect(top.last?.contains(" pod ") == true, "\(top)")
                let version = try docker.succeed("version", "-f", "{{.Server.Version}}")
                #expect(version.hasPrefix("20.10.") == (way.release == .bookworm), "\(version)")

                #expect(try docker.succeed("logs", name) == "ready\n")
                try docker.succeed("stop", "-t", "20", name)
                let state = try docker.succeed("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name).trimmed
                #expect(state == "exited 5")
                // Again, as a new machine.
                try docker.succeed("start", name)
                try docker.succeed("kill", name)
                #expect(try docker.succeed("wait", name).trimmed == "137")
                try docker.succeed("rm", name)
            }
        }

        @Test func outOfMemoryIsTold() throws {
            try Docker.play { docker, scene in
                let name = scene.newID()
                let outcome = try docker.run("run", "--name", name, "-m", "32m", Docker.image, "tail", "/dev/zero")
                #expect(outcome.code == 137, "\(outcome.errorText)")
                let state = try docker.succeed("inspect", "-f", "{{.State.OOMKilled}}", name).trimmed
                #expect(state == "true")
                try docker.succeed("rm", name)
            }
        }
    }
}
