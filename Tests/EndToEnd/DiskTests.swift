import Glibc
import LinuxSystem
import OCISpec
import Testing

extension Containers {
    /// File systems on disks of the host.
    @Suite struct DiskTests {
        private func image(_ scene: Scene, mebibytes: Int) throws -> String {
            let path = "\(scene.directory)/disk"
            try Command.shell("truncate -s \(mebibytes)M \(path) && mkfs.ext4 -q -F \(path)", within: .seconds(120))
            return path
        }

        private func mount(_ path: String, options: [String] = []) -> Mount {
            Mount(destination: "/disk", type: "ext4", source: path, options: options)
        }

        static let size = Lab.everything ? 2048 : 128

        @Test func whatAGuestWritesIsWholeOnTheHost() throws {
            try Scene.play { scene in
                let path = try image(scene, mebibytes: Self.size)
                let count = Self.size * 3 / 4
                // A file that fills most of it, many small ones, some of them removed, and free space given back.
                let script = """
                    set -e
                    busybox dd if=/dev/zero bs=1M count=\(count) 2>/dev/null | busybox tr '\\0' 'm' >/disk/large
                    busybox mkdir /disk/many
                    i=0; while [ $i -lt 500 ]; do echo $i >/disk/many/$i; i=$((i+1)); done
                    busybox rm /disk/many/4*
                    busybox sync
                    busybox md5sum </disk/large
                    busybox ls /disk/many | busybox wc -l
                    """
                let bundle = try scene.bundle(script: script) { $0.mounts.append(mount(path)) }
                let outcome = try scene.run(bundle: bundle, within: .seconds(600))
                #expect(outcome.code == 0, "\(outcome.errorText)")
                #expect(outcome.lines.last == "389", "\(outcome.text)")
                try Command.shell("e2fsck -f -n \(path)", within: .seconds(120))
                let sum = try Command.shell(
                    "debugfs -R 'cat /large' \(path) 2>/dev/null | md5sum", within: .seconds(300))
                #expect(outcome.lines.first == sum.split(separator: "\n").first.map(String.init), "\(outcome.text)")
            }
        }

        @Test func aReadOnlyDiskRefusesWrites() throws {
            try Scene.play { scene in
                let path = try image(scene, mebibytes: 16)
                let before = try Command.run("md5sum", [path])
                // Around the mount: the disk itself, by its node.
                let script = """
                    echo x >/disk/file || echo refused
                    node=/tmp/node; dev=$(busybox cat /sys/block/vda/dev); busybox cat /sys/block/vda/ro
                    busybox mknod $node b ${dev%:*} ${dev#*:} && busybox dd if=/dev/zero of=$node bs=4096 count=1 || echo refused
                    """
                let bundle = try scene.bundle(script: script) { spec in
                    spec.mounts.append(mount(path, options: ["ro"]))
                    let all = Capabilities.everything
                    spec.process?.capabilities = Capabilities(bounding: all, effective: all, permitted: all)
                    for index in spec.mounts.indices where spec.mounts[index].destination == "/tmp" {
                        spec.mounts[index].options.removeAll { $0 == "nodev" }
                    }
                }
                let outcome = try scene.run(bundle: bundle, within: .seconds(120))
                #expect(outcome.lines == ["refused", "1", "refused"], "\(outcome.text) \(outcome.errorText)")
                #expect(try Command.run("md5sum", [path]) == before)
            }
        }

        @Test func aDiskThatCannotBeIsNamed() throws {
            try Scene.play { scene in
                let empty = try scene.write("empty", bytes: [UInt8](repeating: 0, count: 1 << 20)[...])
                for (path, words) in [("/nonexistent/disk", "mounts["), ("/etc", "neither a file"), (empty, "mount")] {
                    let bundle = try scene.bundle(args: ["true"]) { $0.mounts.append(mount(path)) }
                    let outcome = try scene.run(bundle: bundle)
                    #expect(outcome.code == 1)
                    #expect(outcome.errorText.contains(words), "\(outcome.errorText)")
                }
            }
        }

        /// `docker run --device`, and Kubernetes' volumeDevices.
        @Test(.enabled(if: access("/dev/loop-control", R_OK | W_OK) == 0, "needs loop devices"))
        func aBlockDeviceOfTheHostIsADisk() throws {
            try Scene.play { scene in
                let path = "\(scene.directory)/disk"
                try Command.shell("truncate -s 32M \(path)")
                let loop = try Command.shell("losetup -f --show \(path)").split(separator: "\n").joined()
                defer { _ = try? Command.shell("losetup -d \(loop)") }
                var facts = stat()
                try #require(stat(loop, &facts) == 0)
                let (major, minor) = (Int64(facts.st_rdev >> 8 & 0xfff), Int64(facts.st_rdev & 0xff))
                let script = """
                    set -e
                    stat -c '%F %a' /dev/xvda; blockdev --getsize64 /dev/xvda
                    echo kept | dd of=/dev/xvda bs=512 seek=4 conv=notrunc 2>/dev/null; dd if=/dev/zero of=/dev/xvda bs=1M seek=8 count=16 2>/dev/null
                    sync; blkdiscard -o 8388608 -l 16777216 /dev/xvda; echo done
                    """
                func bundle(_ access: String, _ script: String) throws -> String {
                    try scene.bundle(script: script) { spec in
                        spec.linux?.devices = [
                            .init(path: "/dev/xvda", type: "b", major: major, minor: minor, fileMode: 0o640)
                        ]
                        var rule = Linux.Resources.DeviceRule(allow: true, access: access)
                        (rule.type, rule.major, rule.minor) = ("b", major, minor)
                        var resources = Linux.Resources()
                        resources.devices = [.init(allow: false, access: "rwm"), rule]
                        spec.linux?.resources = resources
                    }
                }
                let outcome = try scene.run(bundle: bundle("rwm", script), within: .seconds(120))
                #expect(
                    outcome.lines == ["block special file 640", "33554432", "done"],
                    "\(outcome.text)\(outcome.errorText)")
                let kept = try Command.shell("dd if=\(path) bs=512 skip=4 count=1 2>/dev/null | head -c 5")
                #expect(kept == "kept\n")
                // Discarding has given the space back.
                #expect(try Command.shell("test $(stat -c %b \(path)) -lt 4096 && echo sparse") == "sparse\n")

                let reading =
                    "dd if=/dev/xvda bs=512 skip=4 count=1 2>/dev/null | head -c 5; echo x >/dev/xvda || echo refused"
                let refused = try scene.run(bundle: bundle("r", reading), within: .seconds(120))
                #expect(refused.lines == ["kept", "refused"], "\(refused.text)\(refused.errorText)")
            }
        }
    }
}
