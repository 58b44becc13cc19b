import Glibc
import LinuxSystem
import Testing

extension Containers {
    /// containerd's containers in networks that CNI plugins made.
    @Suite(.enabled(if: Containerd.obstacle == nil, "\(Containerd.obstacle ?? "")"))
    struct ContainerdNetworkTests {
        /// `ctr` in a namespace with a configuration of its own where it looks for one.
        private func arguments(_ net: Net, _ configurations: String, _ arguments: [String]) -> [String] {
            let script = "mkdir -p /etc/cni/net.d; mount --bind \(configurations) /etc/cni/net.d && exec ctr \"$@\""
            return ["netns", "exec", net.host, "/bin/sh", "-c", script, "sh"] + arguments
        }

        @Test func ctrMakesANetworkByCNI() throws {
            try Containerd.play { containerd, scene in
                let net = try Net(scene)
                defer { try? net.remove() }
                let configurations = try scene.makeDirectory("cni")
                let data = try scene.makeDirectory("cni-data")
                try scene.write(
                    "cni/10-test.conf",
                    """
                    {"cniVersion": "0.4.0", "name": "\(scene.token)", "type": "bridge", "bridge": "cni0", "isGateway": true,
                     "ipam": {"type": "host-local", "dataDir": "\(data)", "routes": [{"dst": "0.0.0.0/0"}],
                              "ranges": [[{"subnet": "10.97.0.0/24"}], [{"subnet": "fd97::/64"}]]}}
                    """)
                let script = """
                    ip -o addr show eth0 | grep -v fe80 | tr -s ' ' | cut -d' ' -f 4; ip route | grep default
                    ping -c 1 -W 5 10.97.0.1 >/dev/null && echo v4; ping -c 1 -W 5 fd97::1 >/dev/null && echo v6
                    """
                let run = Containerd.run(["--rm", "--cni"], scene.newID(), ["/bin/sh", "-c", script])
                let outcome = try Command(
                    "ip", arguments(net, configurations, run), environment: containerd.environment
                ).finish()
                #expect(outcome.code == 0, "\(outcome.errorText)\(containerd.log.suffix(1000))")
                #expect(
                    outcome.lines.map { $0.trimmingSpaces } == [
                        "10.97.0.2/24", "fd97::2/64", "default via 10.97.0.1 dev eth0", "v4", "v6",
                    ], "\(outcome.text)\(outcome.errorText)")
            }
        }
    }
}

extension String {
    fileprivate var trimmingSpaces: String { split(separator: " ").joined(separator: " ") }
}
