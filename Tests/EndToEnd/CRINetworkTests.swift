import Glibc
import LinuxSystem
import Testing

extension Containers {
    /// Pods in networks of real CNI plugins.
    @Suite(.enabled(if: CRI.obstacle == nil, "\(CRI.obstacle ?? "")"))
    struct CRINetworkTests {
        /// Answers each connection with its name.
        private func serve(_ pod: CRIPod) throws -> CRIContainer {
            let container = try pod.start("server", "nc -ll -p 80 -e /bin/hostname & sleep 1000")
            try container.shell("for i in $(seq 50); do netstat -lnt | grep -q :80 && exit; sleep 0.1; done; exit 1")
            return container
        }

        @Test func podsOfBothKindsReachEachOther() throws {
            try CRI.play { cri in
                let pods = try ["martlet", CRI.other, "martlet"].map { try cri.run($0) }
                let servers = try pods.map(serve)
                for (index, pod) in pods.enumerated() {
                    let address = try pod.address
                    #expect(address == "10.98.0.\(index + 2)")
                    for (other, server) in servers.enumerated() where other != index {
                        #expect(try server.shell("nc -w 5 \(address) 80") == "pod\(index + 1)\n")
                    }
                    #expect(try cri.shell("busybox nc -w 5 \(address) 80").text == "pod\(index + 1)\n")
                }
                // With CRI-O /etc/hosts is kubelet's alone.
                let files = CRIO.isWanted ? "/etc/resolv.conf" : "/etc/resolv.conf /etc/hosts"
                let facts = try servers[0].shell("ip -o -4 addr show eth0; ip route; cat \(files)")
                #expect(facts.contains("10.98.0.2/24") && facts.contains("default via 10.98.0.1 dev eth0"), "\(facts)")
                for pod in pods { try pod.remove() }
            }
        }

        /// From outside, from the host itself, and by 127.0.0.1.
        @Test func portsOfTheHostAreThePods() throws {
            try CRI.play { cri in
                let pod = try cri.run {
                    $0["port_mappings"] = [["protocol": "TCP", "container_port": 80, "host_port": 8000]]
                }
                _ = try serve(pod)
                // CRI-O forwards ports itself, and none of 127.0.0.1.
                for address in ["10.96.0.1", "10.98.0.1"] + (CRIO.isWanted ? [] : ["127.0.0.1"]) {
                    #expect(try cri.shell("busybox nc -w 5 \(address) 8000").text == "pod1\n", "\(address)")
                }
                let neighbour = try cri.run(CRI.other).start("asker")
                #expect(try neighbour.shell("nc -w 5 10.98.0.1 8000") == "pod1\n")
                try neighbour.pod.remove()
                try pod.remove()
                #expect(try cri.shell("busybox nc -w 2 10.96.0.1 8000").text == "")
            }
        }

        @Test(.enabled(if: !CRIO.isWanted, "CRI-O has one network for all of its runtimes"))
        func aPodHasAMacvlan() throws {
            try CRI.play { cri in
                let pod = try cri.run("macvlan")
                let server = try serve(pod)
                #expect(try pod.address == "10.96.0.10")
                #expect(try cri.shell("busybox nc -w 5 10.96.0.10 80").text == "pod1\n")
                #expect(try server.shell("ping -c 1 -W 5 10.96.0.1 >/dev/null && echo there") == "there\n")
                try pod.remove()
            }
        }
    }
}
