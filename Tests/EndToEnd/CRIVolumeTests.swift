import Glibc
import LinuxSystem
import Testing

extension Containers {
    /// What a kubelet mounts into containers.
    @Suite(.enabled(if: CRI.obstacle == nil, "\(CRI.obstacle ?? "")"))
    struct CRIVolumeTests {
        private func mount(_ path: String, from source: String, readOnly: Bool = false) -> JSONValue {
            ["container_path": "\(path)", "host_path": "\(source)", "readonly": .bool(readOnly)]
        }

        @Test func volumesOfTheHostAreShared() throws {
            try CRI.play { cri in
                let (path, fixed, empty) = (
                    try cri.scene.makeDirectory("path"), try cri.scene.makeDirectory("fixed"),
                    try cri.scene.makeDirectory("empty")
                )
                try cri.scene.write("path/file", "of the host\n")
                try cri.scene.write("fixed/file", "fixed\n")
                let pod = try cri.run()
                let writer = try pod.start("writer") {
                    $0["mounts"] = [
                        mount("/path", from: path), mount("/fixed", from: fixed, readOnly: true),
                        mount("/cache", from: empty),
                    ]
                }
                let reader = try pod.start("reader") { $0["mounts"] = [mount("/other/place", from: empty)] }
                // hostPath: both sides see the other's.
                #expect(try writer.shell("cat /path/file; echo of the pod >/path/answer") == "of the host\n")
                #expect(Leftovers.read("\(path)/answer") == "of the pod\n")
                try cri.scene.write("path/later", "later\n")
                #expect(try writer.shell("cat /path/later") == "later\n")
                let refused = try writer.execute(["/bin/sh", "-c", "cat /fixed/file; echo x >/fixed/file"])
                #expect(
                    refused.code == 1 && refused.output == "fixed\n" && refused.errors.contains("Read-only"),
                    "\(refused)")
                // emptyDir: both containers see the other's, and what the first leaves stays.
                try writer.shell("echo one >/cache/file; mkfifo /cache/fifo; ln -s file /cache/link; chmod 1777 /cache")
                #expect(try reader.shell("cat /other/place/link; echo two >>/other/place/file") == "one\n")
                #expect(try writer.shell("cat /cache/file") == "one\ntwo\n")
                try writer.stop(timeout: 0)
                try writer.remove()
                #expect(try reader.shell("cat /other/place/file") == "one\ntwo\n")
                try pod.remove()
            }
        }

        /// As kubelet gives a container the block device of a claim (`volumeDevices`). The second container of the pod, which comes when
        /// the machine runs, has the same disk.
        @Test(.enabled(if: access("/dev/loop-control", R_OK | W_OK) == 0, "needs loop devices"))
        func aBlockVolumeIsADisk() throws {
            try CRI.play { cri in
                let path = "\(cri.scene.directory)/claim"
                try Command.shell("truncate -s 16M \(path)")
                let loop = try Command.shell("losetup -f --show \(path)").trimmed
                defer { _ = try? Command.shell("losetup -d \(loop)") }
                let pod = try cri.run()
                let containers = try ["one", "two"].map { name in
                    try pod.start(name) {
                        $0["devices"] = [
                            ["container_path": "/dev/data", "host_path": "\(loop)", "permissions": "mrw"]
                        ]
                    }
                }
                #expect(
                    try containers[0].shell("test -b /dev/data && echo kept >/dev/data && sync && echo ok") == "ok\n")
                #expect(try containers[1].shell("head -c 5 /dev/data") == "kept\n")
                #expect(try Command.shell("head -c 5 \(path)") == "kept\n")
                try pod.remove()
                // Nobody holds the device any more.
                try Command.shell("blockdev --flushbufs \(loop)")
            }
        }

        /// hostPath of type Socket, in two containers of a pod; one goes before the other.
        @Test func aSocketOfTheHostIsForwarded() throws {
            try CRI.play { cri in
                let path = "\(cri.scene.directory)/socket"
                let program = try Program.path("sockets")
                let server = try Command(program, ["serve", path])
                try server.output?.wait(for: "ready\n")
                defer {
                    server.child.signal(SIGKILL)
                    _ = try? server.finish()
                }
                let pod = try cri.run()
                let containers = try ["one", "two"].map { name in
                    try pod.start(name) {
                        $0["mounts"] = [
                            mount("/run/s", from: path), mount("/sockets", from: program, readOnly: true),
                        ]
                    }
                }
                for container in containers { #expect(try container.shell("/sockets echo /run/s 50000") == "ok\n") }
                try containers[0].stop(timeout: 0)
                try containers[0].remove()
                #expect(try containers[1].shell("/sockets half /run/s 50000") == "ok\n")
                try pod.remove()
            }
        }

        /// A kubelet gives these to each container.
        @Test func singleFilesAreMounted() throws {
            try CRI.play { cri in
                let log = try cri.scene.write("termination", "")
                let hosts = try cri.scene.write("hosts", "127.0.0.1 localhost\n10.98.0.9 friend\n")
                chmod(log, 0o666)
                let pod = try cri.run {
                    $0["dns_config"] = ["servers": ["10.98.0.53"], "searches": ["test.local"], "options": ["ndots:5"]]
                }
                let container = try pod.start("one") {
                    $0["mounts"] = [
                        mount("/dev/termination-log", from: log), mount("/etc/hosts", from: hosts, readOnly: true),
                    ]
                }
                #expect(try container.shell("cat /etc/hosts") == "127.0.0.1 localhost\n10.98.0.9 friend\n")
                let resolver = try container.shell("cat /etc/resolv.conf")
                #expect(resolver == "search test.local\nnameserver 10.98.0.53\noptions ndots:5\n", "\(resolver)")
                #expect(try container.shell("cat /etc/hostname") == "pod1\n")
                try container.shell("echo last words >/dev/termination-log")
                #expect(Leftovers.read(log) == "last words\n")
                #expect(try container.execute(["/bin/sh", "-c", "echo x >>/etc/hosts"]).code != 0)
                // A file is changed in place.
                try cri.scene.write("hosts", "127.0.0.1 localhost\n")
                #expect(try container.shell("cat /etc/hosts") == "127.0.0.1 localhost\n")
                // containerd's: 64 MiB.
                #expect(try container.shell("df -k /dev/shm | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2") == "65536\n")
                let full = try container.execute(["/bin/dd", "if=/dev/zero", "of=/dev/shm/file", "bs=1M", "count=65"])
                #expect(full.code != 0 && full.errors.contains("No space left"), "\(full)")
                try pod.remove()
            }
        }
    }
}
