import Glibc
import LinuxSystem
import Testing

extension Containers.DockerTests {
    /// dockerd, containerd and runc in a privileged container, with their storage on a tmpfs; what they need of the host they get
    /// read-only. On a host with version 1 of the cgroups docker gives its containers no cgroup namespace: then they see the guest's.
    @Test(.enabled(if: Lab.everything, Lab.isLong), arguments: ["host", "private"])
    func dockerRunsInDocker(cgroups: String) throws {
        try Docker.play { docker, scene in
            let engines = try Command.run("realpath", ["\(Lab.cache)/engines/trixie"]).trimmed
            let archive = "\(scene.directory)/image.tar"
            try Command.run("\(Lab.repository)/scripts/image.py", ["docker.io/library/inner:latest", archive])
            // As the script of the image docker:dind does it: only a cgroup without processes gives controllers to those below.
            let script = """
                export PATH=\(engines):/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
                mkdir /sys/fs/cgroup/init
                xargs -n1 </sys/fs/cgroup/cgroup.procs >/sys/fs/cgroup/init/cgroup.procs 2>/dev/null
                sed -e 's/ / +/g' -e 's/^/+/' </sys/fs/cgroup/cgroup.controllers >/sys/fs/cgroup/cgroup.subtree_control
                dockerd --iptables=true >/tmp/log 2>&1 &
                for i in $(seq 300); do docker version >/tmp/version 2>&1 && break; sleep 0.2; done
                docker load -qi /image.tar && docker info -f '{{.Driver}} v{{.CgroupVersion}}' &&
                docker run --rm -m 64m inner sh -c 'echo inner; cat /sys/fs/cgroup/memory.max' &&
                docker run --rm inner sh -c 'for to in 172.18.0.1 172.17.0.1; do
                    ping -c 1 -w 10 $to >/dev/null && echo reached $to; done' || tail -n 40 /tmp/log
                """
            let mounts = ["/usr", "/lib", "/lib64", "/etc/alternatives", "\(Lab.cache)/debian", engines]
                .flatMap { ["-v", "\($0):\($0):ro"] }
            let outcome = try docker.begin(
                ["run", "--rm", "--privileged", "--cgroupns", cgroups, "--tmpfs", "/var/lib/docker", "--tmpfs", "/run"]
                    + mounts + ["-v", "\(archive):/image.tar:ro", Docker.image, "/bin/sh", "-c", script]
            ).finish(within: .seconds(180))
            #expect(
                outcome.lines.dropFirst() == [
                    "overlay2 v2", "inner", "67108864", "reached 172.18.0.1", "reached 172.17.0.1",
                ], "\(outcome.text)\(outcome.errorText)")
        }
    }
}
