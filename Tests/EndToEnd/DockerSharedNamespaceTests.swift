import Testing

extension Containers {
    /// Containers of docker that share namespaces of one another, and of the host.
    @Suite(.enabled(if: Docker.obstacle == nil, "\(Docker.obstacle ?? "")"))
    struct DockerSharedNamespaceTests {
        @Test func containersThatShareANetworkShareAMachine() throws {
            try Docker.play { docker, scene in
                let (first, second) = (scene.newID(), scene.newID())
                let serve = """
                    echo 4711 >/proc/sys/kernel/msgmni
                    mkdir /www && echo page >/www/index.html && exec httpd -f -p 127.0.0.1:8080 -h /www
                    """
                try docker.succeed(
                    "run", "-d", "--privileged", "--ipc", "shareable", "--name", first, Docker.image, "/bin/sh", "-c",
                    serve)
                let fetch = """
                    for i in 1 2 3 4 5 6 7 8 9; do wget -qO- http://127.0.0.1:8080/ && break; sleep 1; done
                    cat /proc/sys/kernel/msgmni; tr '\\0\\n' '  ' </proc/1/cmdline; echo
                    """
                let shared = try docker.run(
                    "run", "--rm", "--network", "container:\(first)", Docker.image, "/bin/sh", "-c", fetch)
                #expect(shared.code == 0, "\(shared.errorText)\(docker.log.suffix(2000))")
                #expect(shared.lines.first == "page" && shared.lines.dropFirst().first != "4711", "\(shared.text)")
                #expect(shared.lines.last?.hasPrefix("/bin/sh -c") == true, "\(shared.text)")
                try docker.succeed(
                    "run", "-d", "--name", second, "--network", "container:\(first)", "--pid", "container:\(first)",
                    "--ipc", "container:\(first)", Docker.image, "sleep", "1000")
                let pods = try Command.run(
                    Lab.martlet, ["--root", "\(scene.directory)/pods", "pod", "list"])
                #expect(pods.split(separator: "\n").count == 2, "a header and one pod: \(pods)")
                let seen = try docker.succeed("exec", second, "/bin/sh", "-c", fetch).split(separator: "\n")
                #expect(seen == ["page", "4711", "httpd -f -p 127.0.0.1:8080 -h /www "])

                // Without the other's network it would be in a machine of its own.
                for kind in ["pid", "ipc"] {
                    let outside = try docker.run(
                        "run", "--rm", "--\(kind)", "container:\(first)", Docker.image, "true")
                    #expect(
                        outside.code == 125 && outside.errorText.contains("a namespace outside the pod's machine")
                            && outside.errorText.contains("linux.namespaces: \(kind): /proc/"), "\(outside.errorText)")
                }
                try docker.succeed("rm", "-f", second)
                try docker.succeed("rm", "-f", first)
            }
        }

        @Test func namespacesOfTheHostAreRefused() throws {
            try Docker.play { docker, scene in
                for (option, kind) in [("network", "network"), ("pid", "pid"), ("ipc", "ipc"), ("uts", "uts")] {
                    let outcome = try docker.run("run", "--rm", "--\(option)", "host", Docker.image, "true")
                    #expect(
                        outcome.code == 125 && outcome.errorText.contains("linux.namespaces: host \(kind): "),
                        "\(outcome.errorText)")
                }
            }
            try Docker.play(settings: "spec.host_namespaces = \"warn\"\n") { docker, scene in
                let outcome = try docker.run(
                    "run", "--rm", "--network", "host", "--pid", "host", "--ipc", "host", "--uts", "host", Docker.image,
                    "/bin/sh", "-c", "echo $$; ls /sys/class/net")
                #expect(outcome.code == 0, "\(outcome.errorText)")
                #expect(outcome.lines.last == "lo", "\(outcome.text)")
                #expect(
                    docker.log.contains("host network: the container has the network namespace"),
                    "\(docker.log.suffix(3000))")
            }
        }
    }
}
