import Glibc
import Testing

extension Containers {
    /// Names on docker's user-defined networks, which a resolver in the container's network namespace on the host knows.
    @Suite(.enabled(if: Docker.obstacle == nil, "\(Docker.obstacle ?? "")"))
    struct DockerNameTests {
        @Test func containersFindEachOtherByName() throws {
            try Docker.play { docker, scene in
                let (network, name) = (scene.newID(), scene.newID())
                try docker.succeed("network", "create", network)
                try docker.succeed(
                    "run", "-d", "--name", name, "--network", network, Docker.image, "/bin/sh", "-c",
                    "trap 'exit 0' TERM; while :; do sleep 0.2; done")
                let script = """
                    grep nameserver /etc/resolv.conf
                    ping -c 1 -w 20 \(name) >/dev/null && echo reached
                    nslookup \(name) 127.0.0.11 | grep -c '^Address.*172'
                    octal() { printf '\\\\%03o' $1; }
                    n=\(name.utf8.count)
                    printf "\\0$(octal $((18 + n)))\\0\\7\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0$(octal $n)\(name)\\0\\0\\1\\0\\1" \\
                        | nc -w 10 127.0.0.11 53 | tail -c +3 | head -c 8 | od -An -tx1
                    """
                let outcome = try docker.run("run", "--rm", "--network", network, Docker.image, "/bin/sh", "-c", script)
                #expect(outcome.lines.contains("nameserver 127.0.0.11"), "\(outcome.text)\(outcome.errorText)")
                #expect(outcome.lines.contains("reached"), "\(outcome.text)\(outcome.errorText)")
                #expect(outcome.text.contains(" 00 07 81 80 00 01 00 01"), "over TCP: \(outcome.text)")
                // A network that comes while the container runs brings its resolver along.
                let late = scene.newID()
                try docker.succeed(
                    "run", "-d", "--name", late, Docker.image, "/bin/sh", "-c",
                    "trap 'exit 0' TERM; while :; do sleep 0.2; done")
                try docker.succeed("network", "connect", network, late)
                let found = try docker.run(
                    "exec", late, "/bin/sh", "-c",
                    "for i in 1 2 3 4 5; do ping -c 1 -w 5 \(name) && exit 0; sleep 1; done; exit 1")
                #expect(found.code == 0, "\(found.text)\(found.errorText)\(docker.log.suffix(2000))")
                try docker.succeed("rm", "-f", name, late)
                try docker.succeed("network", "rm", network)
            }
        }

        @Test func aSocketOfTheHostIsMounted() throws {
            try Docker.play { docker, scene in
                let server = try SocketServer(scene)
                defer { server.end() }
                let echo = try docker.succeed(
                    "run", "--rm", "-v", "\(server.path):/run/s.sock", "-v", "\(Program.path("sockets")):/sockets:ro",
                    Docker.image,
                    "/sockets", "echo", "/run/s.sock", "100000")
                #expect(echo == "ok\n")
            }
        }
    }
}
