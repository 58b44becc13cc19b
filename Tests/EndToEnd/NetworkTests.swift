import Glibc
import LinuxSystem
import OCISpec
import Testing

extension Containers {
    /// Containers in network namespaces as an engine makes them.
    @Suite struct NetworkTests {
        /// Runs `body` with a switch, and checks that nothing of it is in the pods' namespaces afterwards.
        func play(mtu: Int = 1500, _ body: (Scene, Net) throws -> Void) throws {
            try Scene.play { scene in
                let net = try Net(scene, mtu: mtu)
                do { try body(scene, net) } catch {
                    try? net.remove()
                    throw error
                }
                try net.remove()
            }
        }

        func bundle(_ scene: Scene, in pod: String?, _ script: String) throws -> String {
            try scene.bundle(script: script) { spec in
                for index in spec.linux?.namespaces.indices ?? 0..<0 {
                    guard spec.linux?.namespaces[index].kind == .network else { continue }
                    spec.linux?.namespaces[index].path = pod.map(Net.path) ?? ""
                }
                let capabilities = ["CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE"]
                spec.process?.capabilities = Capabilities(
                    bounding: capabilities, effective: capabilities, permitted: capabilities)
                spec.root?.readonly = false
            }
        }

        @Test func theGuestHasWhatTheNamespaceHas() throws {
            try play { scene, net in
                let pod = try net.pod()
                try net.connect(pod, number: 2, mtu: 1400)
                try Command.shell(
                    """
                    n="ip -n \(pod)"
                    $n addr add 10.98.0.2/32 dev eth0
                    $n route add 169.254.1.1 dev eth0 scope link
                    $n route add default via 169.254.1.1 dev eth0 onlink mtu 1300
                    $n route add 10.77.0.0/16 via 10.99.0.1 src 10.98.0.2 metric 7
                    $n route add unreachable 10.66.0.0/16
                    $n route add default via fe80::1 dev eth0
                    $n addr add 10.95.0.0/31 dev eth0
                    $n addr add fd95::1/127 dev eth0
                    $n addr add fd96::1/128 dev eth0
                    $n route add 10.55.0.7/32 via 10.88.0.1 dev eth0 onlink
                    $n route add 10.55.0.8/31 dev eth0
                    $n route add fd77::/48 via fd88::1 dev eth0 onlink
                    $n neigh add 169.254.1.1 lladdr 02:00:00:00:00:99 dev eth0 nud permanent
                    """)
                let hardware = try Command.shell("ip netns exec \(pod) cat /sys/class/net/eth0/address")
                let script = """
                    tentative=$(ip -o -6 addr | grep -c tentative)
                    ls /sys/class/net; cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu
                    ip -o addr show eth0 | grep -v fe80 | tr -s ' ' | cut -d' ' -f 4
                    ip route; ip -6 route; ip neigh | grep PERMANENT; echo tentative addresses $tentative
                    """
                let outcome = try scene.run(bundle: bundle(scene, in: pod, script))
                #expect(outcome.errorText == "")
                let expected =
                    ["eth0", "lo", String(hardware.dropLast()), "1400", "10.99.0.2/24", "10.98.0.2/32", "fd99::2/64"]
                    + ["10.95.0.0/31", "fd95::1/127", "fd96::1/128", "tentative addresses 0"]
                    + [
                        "default via 169.254.1.1 dev eth0 onlink", "unreachable 10.66.0.0/16 ",
                        "10.77.0.0/16 via 10.99.0.1 dev eth0  src 10.98.0.2  metric 7 ",
                        "10.99.0.0/24 dev eth0 scope link  src 10.99.0.2 ", "169.254.1.1 dev eth0 scope link ",
                        "default via fe80::1 dev eth0  metric 1024 ",
                        "10.95.0.0/31 dev eth0 scope link  src 10.95.0.0 ",
                        "10.55.0.7 via 10.88.0.1 dev eth0 onlink", "10.55.0.8/31 dev eth0 scope link ",
                        "fd95::/127 dev eth0", "fd77::/48 via fd88::1 dev eth0 onlink",
                        "169.254.1.1 dev eth0 lladdr 02:00:00:00:00:99 PERMANENT",
                    ]
                for line in expected {
                    let found = outcome.lines.contains {
                        Set(line.split(separator: " ")).isSubset(of: $0.split(separator: " "))
                    }
                    #expect(found, "\(line) in:\n\(outcome.text)")
                }
                #expect(outcome.lines.prefix(4) == expected.prefix(4))
                #expect(try net.traces(pod).isEmpty)
            }
        }

        static let megabytes = Lab.everything ? 1024 : 64

        /// Both protocols, frames of 9000 bytes, and many bytes in either direction.
        @Test func bytesGoBothWays() throws {
            try play(mtu: 9000) { scene, net in
                let pod = try net.pod()
                try net.connect(pod, number: 2, mtu: 9000)
                let make = "dd if=/dev/zero bs=1M count=\(Self.megabytes) 2>/dev/null | tr '\\0' 'n'"
                let directory = try scene.makeDirectory("served")
                try Command.shell("(\(make)) >\(directory)/big", within: .seconds(120))
                let sum = try Command.shell("md5sum <\(directory)/big", within: .seconds(120))
                let server = try net.start(net.host, "exec busybox httpd -f -p 7000 -h \(directory)")
                defer { server.child.signal(SIGKILL) }
                let script = """
                    ping -c 1 -W 5 10.99.0.1 >/dev/null && echo v4
                    ping -c 1 -W 5 fd99::1 >/dev/null && echo v6
                    ping -c 1 -W 5 -s 8900 10.99.0.1 >/dev/null && echo large
                    wget -q -O - http://10.99.0.1:7000/big | md5sum
                    mkdir /tmp/served; (\(make)) >/tmp/served/big
                    httpd -p 80 -h /tmp/served; echo serving; read line
                    """
                let run = try scene.start(bundle: bundle(scene, in: pod, script), input: .pipe)
                try run.output?.wait(for: "serving\n", within: .seconds(300))
                let client = try net.start(net.host, "busybox wget -q -O - http://[fd99::2]/big | md5sum")
                #expect(try client.finish(within: .seconds(300)).text == sum)
                run.input?.write("\n")
                let outcome = try run.finish()
                #expect(
                    outcome.lines.map { $0 + "\n" } == ["v4\n", "v6\n", "large\n", sum, "serving\n"],
                    "\(outcome.text)\(outcome.errorText)")
                #expect(try net.traces(pod).isEmpty)
            }
        }

        /// Each processor has a pair of queues. Connections spread over them: one that does not work holds some up.
        @Test func everyProcessorHasItsQueues() throws {
            try play { scene, net in
                let pod = try net.pod()
                try net.connect(pod, number: 2)
                let script = """
                    echo $(ls /sys/class/net/eth0/queues)
                    mkdir /tmp/served; dd if=/dev/zero bs=1M count=4 2>/dev/null | tr '\\0' 'n' >/tmp/served/big
                    httpd -p 80 -h /tmp/served; echo serving; read line
                    """
                let run = try scene.start(
                    bundle: bundle(scene, in: pod, script), global: scene.configuration("vm.vcpus = 2"), input: .pipe)
                try run.output?.wait(for: "serving\n")
                let clients = """
                    for n in 1 2 3 4 5 6 7 8; do busybox wget -q -O - http://10.99.0.2/big | md5sum & done; wait
                    """
                let client = try net.start(net.host, clients)
                let sums = try client.finish(within: .seconds(120)).lines
                #expect(sums.count == 8 && Set(sums).count == 1, "\(sums)")
                #expect(sums.first == "\(try Command.shell("head -c 4M /dev/zero | tr '\\0' n | md5sum").dropLast())")
                run.input?.write("\n")
                let outcome = try run.finish()
                #expect(outcome.lines.first == "rx-0 rx-1 tx-0 tx-1", "\(outcome.text)\(outcome.errorText)")
                #expect(try net.traces(pod).isEmpty)
            }
        }

        /// What shares an interface of the host by its hardware address (macvlan) or by its addresses (ipvlan).
        enum Shared: String, CaseIterable {
            case macvlan = "macvlan mode bridge"
            case ipvlan = "ipvlan mode l2"

            /// Whether the kernel has it; says so where it has not.
            var isPossible: Bool {
                let name = "martlet-try"
                let attempt =
                    "modprobe -q \(self) || true; ip link add \(name)0 type veth peer name \(name)1 && "
                    + "ip link add link \(name)0 name \(name)2 type \(rawValue); code=$?; ip link del \(name)0; exit $code"
                if (try? Command.shell("(\(attempt)) 2>/dev/null")) != nil { return true }
                print("pods by \(self) are skipped: this kernel has none")
                return false
            }
        }

        /// Two pods on one switch, one of them by an interface that shares another.
        @Test(arguments: Shared.allCases.filter(\.isPossible)) func podsReachEachOther(_ shared: Shared) throws {
            try play { scene, net in
                let (first, second) = (try net.pod(), try net.pod())
                try net.connect(first, number: 2)
                try Command.shell(
                    """
                    ip -n \(net.host) link add m0 type veth peer name m1
                    ip -n \(net.host) link set m0 master br0 up && ip -n \(net.host) link set m1 up
                    ip -n \(net.host) link add link m1 name shared0 type \(shared.rawValue)
                    ip -n \(net.host) link set shared0 netns \(second) name eth0
                    ip -n \(second) addr add 10.99.0.3/24 dev eth0 && ip -n \(second) link set eth0 up
                    """)
                let server = try scene.start(
                    bundle: bundle(scene, in: first, "echo listening; nc -l -p 80 -e echo from the first"))
                try server.output?.wait(for: "listening")
                let script = "ping -c 1 -W 5 10.99.0.2 >/dev/null && nc 10.99.0.2 80 </dev/null"
                let outcome = try scene.run(bundle: bundle(scene, in: second, script))
                #expect(outcome.text == "from the first\n", "\(outcome.errorText)")
                #expect(try server.finish().code == 0)
                #expect(try net.traces(first).isEmpty && net.traces(second).isEmpty)
            }
        }

        /// What comes after the start: an address, then an interface; then one goes. The pid that engines see is in the
        /// namespace.
        @Test func laterChangesFollow() throws {
            try play { scene, net in
                let pod = try net.pod()
                let pidFile = "\(scene.directory)/pid"
                let script = """
                    echo up
                    until ip addr show eth0 2>/dev/null | grep -q 10.99.0.2/24; do sleep 0.05; done; echo interface
                    until ip addr show eth0 | grep -q 10.99.0.77/24; do sleep 0.05; done; echo address
                    until ip addr show eth1 2>/dev/null | grep -q fd99::3; do sleep 0.05; done; echo another
                    # Routes come a moment after addresses.
                    until ping -c 1 -W 5 -I eth1 fd99::1 >/dev/null 2>&1; do sleep 0.05; done; echo reached
                    while ip addr show eth0 | grep -q 10.99.0; do sleep 0.05; done; echo gone; read line
                    """
                let id = scene.newID()
                let run = try scene.start(
                    bundle: bundle(scene, in: pod, script), id: id, options: ["--pid-file", pidFile], input: .pipe)
                try run.output?.wait(for: "up\n")
                let pid = (Leftovers.read(pidFile) ?? "").trimmedNumber
                let inode = "stat -L -c %i"
                #expect(
                    try Command.shell("\(inode) /proc/\(pid)/ns/net") == Command.shell("\(inode) \(Net.path(pod))"))
                try net.connect(pod, number: 2)
                try run.output?.wait(for: "interface\n")
                try Command.run("ip", ["-n", pod, "addr", "add", "10.99.0.77/24", "dev", "eth0"])
                try run.output?.wait(for: "address\n")
                try net.connect(pod, "eth1", number: 3)
                try run.output?.wait(for: "reached\n")
                try Command.run("ip", ["-n", pod, "link", "del", "eth0"])
                try run.output?.wait(for: "gone\n")
                // The machine does not wait without rest for a tap that is gone.
                let machine = try Leftovers.process(Victim.machine.process, in: "\(scene.root)/\(id)/state.json")
                let before = Leftovers.processorTime(machine)
                sleep(2)
                #expect(Leftovers.processorTime(machine) - before < 1)
                run.input?.write("\n")
                #expect(try run.finish().code == 0)
                #expect(try net.traces(pod).isEmpty)
            }
        }

        /// As engines forward ports: in the namespace on the host, to a server that listens in the guest.
        @Test func theNamespacesLoopbackReachesTheGuest() throws {
            try play { scene, net in
                let pod = try net.pod()
                let script = """
                    mkdir /tmp/served; echo found >/tmp/served/page; dd if=/dev/zero of=/tmp/served/big bs=1M count=8 2>/dev/null
                    httpd -p 127.0.0.1:8080 -h /tmp/served; httpd -p 8081 -h /tmp/served; echo serving; read line
                    killall httpd; echo silent; read line
                    """
                let run = try scene.start(bundle: bundle(scene, in: pod, script), input: .pipe)
                try run.output?.wait(for: "serving\n")
                let get = "busybox wget -q -O - http://127.0.0.1"
                let client = try net.start(
                    pod, "until \(get):8080/page 2>/dev/null; do sleep 0.1; done; \(get):8081/big | md5sum")
                #expect(try client.finish().lines == ["found", "96995b58d4cbf6aaa9041b4f00c7f6ae  -"])
                #expect(try net.start(pod, "\(get):8082/page").finish().code != 0)
                run.input?.write("\n")
                try run.output?.wait(for: "silent\n")
                let closed = try net.start(
                    pod,
                    "for i in $(seq 100); do grep -q ' 0100007F:1F90 .* 0A ' /proc/net/tcp || exit 0; sleep 0.1; done; exit 1"
                )
                #expect(try closed.finish().code == 0)
                run.input?.write("\n")
                #expect(try run.finish().code == 0)
            }
        }

        /// Its command clears up after it: the engine's interfaces are free again.
        @Test func aKilledServersInterfacesAreFree() throws {
            try play { scene, net in
                let pod = try net.pod()
                try net.connect(pod, number: 2)
                let id = scene.newID()
                let run = try scene.start(bundle: bundle(scene, in: pod, "echo up; sleep 600"), id: id)
                try run.output?.wait(for: "up\n")
                #expect(try !net.traces(pod).isEmpty)
                kill(try Leftovers.process("server", in: "\(scene.root)/\(id)/state.json"), SIGKILL)
                #expect(try run.finish().code != 0)
                #expect(try net.traces(pod).isEmpty)
            }
        }

        /// TCP in both directions between two pods, and between a pod and the host.
        @Test(arguments: [(4, "10.99.0."), (6, "fd99::")]) func iperf(version: Int, prefix: String) throws {
            try #require(Lab.program("iperf3") != nil, "no iperf3 in PATH")
            try play { scene, net in
                let (first, second) = (try net.pod(), try net.pod())
                try net.connect(first, number: 2)
                try net.connect(second, number: 3)
                let server = try iperfBundle(scene, in: first, "exec iperf3 -s --forceflush")
                let serving = try scene.start(bundle: server)
                try serving.output?.wait(for: "listening on")
                let amount = Lab.everything ? "256M" : "8M"
                // After each client the server opens its socket anew.
                let again = "again() { for try in 1 2 3 4 5; do \"$@\" && return; sleep 1; done; false; }"
                let client = "again iperf3 -\(version) -c \(prefix)2 -n \(amount)"
                let script = """
                    set -e; \(again)
                    ping -c 1 -W 5 \(prefix)1 >/dev/null; ping -c 1 -W 5 \(prefix)2 >/dev/null; echo reached
                    \(client); \(client) -R; echo both
                    """
                let outcome = try scene.run(bundle: iperfBundle(scene, in: second, script), within: .seconds(180))
                #expect(outcome.code == 0, "\(outcome.text)\(outcome.errorText)")
                let host = try net.start(net.host, "\(again); \(client) && \(client) -R").finish(within: .seconds(180))
                #expect(host.code == 0, "\(host.text)\(host.errorText)")
                serving.child.signal(SIGTERM)
                _ = try serving.finish()
                #expect(try net.traces(first).isEmpty && net.traces(second).isEmpty)
            }
        }

        /// As `bundle`, with iperf3 and what it needs.
        private func iperfBundle(_ scene: Scene, in pod: String, _ script: String) throws -> String {
            let bundle = try bundle(scene, in: pod, script)
            try Command.shell(
                """
                program=$(command -v iperf3)
                for file in $program $(ldd $program | grep -o '/[^ ]*'); do install -D $file \(bundle)/rootfs$file; done
                """)
            return bundle
        }

        @Test func withoutAPathThereIsLoAlone() throws {
            try Scene.play { scene in
                let outcome = try scene.run(
                    bundle: bundle(scene, in: nil, "ls /sys/class/net; ping -c 1 127.0.0.1 >/dev/null && echo up"))
                #expect(outcome.lines == ["lo", "up"], "\(outcome.errorText)")
            }
        }

        @Test func aNamespaceThatIsNotThereIsNamed() throws {
            try Scene.play { scene in
                let outcome = try scene.run(bundle: bundle(scene, in: "\(scene.token)none", "true"))
                #expect(outcome.code != 0 && outcome.errorText.contains("/run/netns/\(scene.token)none"))
            }
        }
    }
}

extension String {
    fileprivate var trimmedNumber: Int32 { Int32(filter(\.isNumber)) ?? 0 }
}
