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
                    "echo shared >/dev/shm/file; while :; do echo hello | nc -l -p 8080 -s 127.0.0.1; done")
                try docker.succeed(
                    "run", "-d", "--name", second, "--network", "container:\(first)", "--pid", "container:\(first)",
                    "--ipc", "container:\(first)", Docker.image, "/bin/sleep", "1000")
                let told = try docker.run("exec", second, "/bin/sh", "-c", "nc 127.0.0.1 8080 </dev/null")
                #expect(told.text == "hello\n", "\(told.errorText)")
                #expect(Leftovers.list("\(scene.directory)/pods/containerd-moby").count == 1, "one machine")
                #expect(try docker.run("exec", second, "/bin/cat", "/dev/shm/file").text == "shared\n")
                let processes = try docker.succeed("exec", second, "/bin/cat", "/proc/1/cmdline")
                #expect(processes.contains("nc -l"), "\(processes)")
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
