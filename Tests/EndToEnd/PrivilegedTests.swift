import Glibc
import LinuxSystem
import Testing

extension Containers.DockerTests {
    /// `--privileged`: docker then lists each device of the host, and the container may do everything in its machine.
    @Test func privilegedIsWithinTheMachine() throws {
        try Docker.play { docker, scene in
            let script = """
                grep -E '^(CapEff|Seccomp):' /proc/self/status | tr -s '\\t' ' '
                test -c /dev/hwrng && test -c /dev/loop-control && test -c /dev/fuse && echo devices
                test -e /dev/autofs || test -e /dev/btrfs-control || echo not the host
                mkdir /tmp/m && mount -t tmpfs none /tmp/m && echo mounted
                echo 1 >/proc/sys/net/ipv4/ip_forward && cat /proc/sys/net/ipv4/ip_forward
                mkdir /sys/fs/cgroup/own && echo cgroup
                test -r /proc/kcore || echo no kcore; head -c 1 /dev/kmsg | wc -c
                """
            let outcome = try docker.run("run", "--rm", "--privileged", Docker.image, "/bin/sh", "-c", script)
            // dockerd asks for those that it has itself.
            let bounds = try Command.shell("sed -n 's/^CapBnd:\\t*//p' /proc/self/status").trimmed
            #expect(
                outcome.lines == [
                    "CapEff: \(bounds)", "Seccomp: 0", "devices", "not the host", "mounted", "1", "cgroup",
                    "no kcore", "1",
                ], "\(outcome.text)\(outcome.errorText)")
            let warnings = docker.log.split(separator: "\n").filter { $0.contains("linux.devices") }
            #expect(warnings.count == 1 && warnings[0].contains("what only the host has"), "\(warnings)")

            let device = "\(scene.directory)/device"
            try #require(mknod(device, S_IFBLK | 0o600, 259 << 8 | 77) == 0)
            let one = try docker.run("run", "--rm", "--device", "\(device):/dev/here", Docker.image, "true")
            #expect(one.code == 125 && one.errorText.contains("/dev/here: a device of the host"), "\(one.errorText)")
        }
    }
}
