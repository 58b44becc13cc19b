import Glibc
import LinuxSystem
import Testing

extension Containers {
    /// Containers of docker that share namespaces with each other, or would with the host.
    @Suite(.enabled(if: Docker.obstacle == nil, "\(Docker.obstacle ?? "")"))
    struct DockerSharingTests {
        @Test func containersOfOneNetworkAreOneMachine() throws {
            try Docker.play { docker, scene in
                let (first, second) = (scene.newID(), scene.newID())
                try docker.succeed(
                    "run", "-d", "--name", first, "--ipc", "shareable", Docker.image, "/bin/sh", "-c",
                    "echo shared >/dev/shm/file; nc -ll -p 8080 -e /bin/echo hello & wait")
                try docker.succeed(
                    "run", "-d", "--name", second, "--network", "container:\(first)", "--pid", "container:\(first)",
                    "--ipc", "container:\(first)", Docker.image, "/bin/sleep", "1000")
                let told = try docker.run(
                    "exec", second, "/bin/sh", "-c",
                    "for i in $(seq 100); do nc 127.0.0.1 8080 </dev/null 2>/dev/null && exit; sleep 0.1; done")
                #expect(told.text == "hello\n", "\(told.errorText)")
                #expect(Leftovers.list("\(scene.directory)/pods/containerd-moby").count == 1, "one machine")
                #expect(try docker.run("exec", second, "/bin/cat", "/dev/shm/file").text == "shared\n")
                let processes = try docker.succeed("exec", second, "/bin/cat", "/proc/1/cmdline")
                #expect(processes.contains("nc -ll"), "\(processes)")
                // The network alone: memory of its own.
                let apart = try docker.run(
                    "run", "--rm", "--network", "container:\(first)", "--shm-size", "16m", Docker.image, "/bin/sh",
                    "-c",
                    "ls /dev/shm; df -m /dev/shm | tail -n 1; nc 127.0.0.1 8080 </dev/null")
                #expect(
                    apart.lines.count == 2 && apart.lines[0].split(separator: " ")[1] == "16"
                        && apart.lines[1] == "hello",
                    "\(apart.text)\(apart.errorText)")
                // Whose processes are another machine's.
                let outside = try docker.run("run", "--rm", "--pid", "container:\(first)", Docker.image, "true")
                #expect(outside.errorText.contains("a namespace outside the pod's machine"), "\(outside.errorText)")
                let host = try docker.run("run", "--rm", "--network", "host", Docker.image, "true")
                #expect(host.errorText.contains("host network"), "\(host.errorText)")
                try docker.succeed("rm", "-f", second)
                try docker.succeed("rm", "-f", first)
            }
        }
    }
}
