import Glibc
import LinuxSystem
import OCISpec
import Testing

extension Containers {
    /// Many pods from one template.
    @Suite(.enabled(if: Lab.driver == .kvm && Lab.everything, "a soak of the built-in VMM (make test-all)"))
    struct TemplateSoakTests {
        private static let restores = 200

        /// Each has its own network, host name and entropy, the right time, and a directory of the host.
        @Test func manyRestoresAreAllDifferent() throws {
            try Scene.play { scene in
                let net = try Net(scene, mtu: 1500)
                defer { try? net.remove() }
                let options = try scene.configuration("template.directory = \"\(scene.directory)/templates\"")
                let made = try Command(Lab.martlet, options + ["template", "create"], environment: Lab.environment)
                    .finish(within: .seconds(120))
                try #require(made.code == 0, "\(made.errorText)")
                let data = try scene.makeDirectory("data")
                let pod = try net.pod()
                try net.connect(pod, number: 2, mtu: 1500)
                let hardware = try Command.shell("ip netns exec \(pod) cat /sys/class/net/eth0/address")
                let bundle = try scene.bundle(
                    script: """
                        date +%s; head -c 64 /dev/urandom | md5sum; cat /proc/sys/kernel/random/boot_id; hostname
                        cat /sys/class/net/eth0/address; ip -o -4 addr show eth0 | tr -s ' ' | cut -d' ' -f4
                        cat /data/in; cat /data/in >/data/out
                        """
                ) { spec in
                    spec.hostname = "soak"
                    for index in spec.linux?.namespaces.indices ?? 0..<0
                    where spec.linux?.namespaces[index].kind == .network {
                        spec.linux?.namespaces[index].path = Net.path(pod)
                    }
                    spec.mounts.append(
                        Mount(destination: "/data", type: "bind", source: data, options: ["rbind", "rw"]))
                }
                try Command.run("mkdir", ["\(bundle)/rootfs/data"])
                var seen: Set<String> = []
                for number in 0..<Self.restores {
                    try scene.write("data/in", "round \(number)\n")
                    let outcome = try scene.run(bundle: bundle, global: options + ["--debug"])
                    try #require(outcome.code == 0 && outcome.lines.count == 7, "\(number): \(outcome.errorText)")
                    #expect(!outcome.errorText.contains("martlet-agent ready"), "\(number) booted")
                    #expect(abs((Int(outcome.lines[0]) ?? 0) - time(nil)) <= 2 * Lab.patience, "\(number)")
                    #expect(
                        seen.insert(outcome.lines[1]).inserted && seen.insert(outcome.lines[2]).inserted, "\(number)")
                    #expect(outcome.lines[3] == "soak" && outcome.lines[4] + "\n" == hardware, "\(number)")
                    #expect(outcome.lines[5].hasPrefix("10.99.0.2/"), "\(number): \(outcome.lines[5])")
                    #expect(outcome.lines[6] == "round \(number)", "\(number)")
                    #expect(Leftovers.read("\(data)/out") == "round \(number)\n", "\(number)")
                }
            }
        }
    }
}
