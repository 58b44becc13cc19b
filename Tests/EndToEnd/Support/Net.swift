import Glibc
import LinuxSystem

/// Namespaces of one test: a switch with the "host" on it, and pods' ones as an engine makes them. All are gone with it.
final class Net {
    /// Where the bridge is, 10.99.0.1 and fd99::1.
    let host: String
    private let token: String
    private var pods: [String] = []

    init(_ scene: Scene, mtu: Int = 1500) throws {
        token = scene.token
        host = "\(token)host"
        try Command.shell(
            """
            modprobe -q -a bridge veth macvlan sch_ingress cls_u32 cls_bpf act_mirred || true
            ip netns add \(host)
            ip -n \(host) link set lo up
            ip -n \(host) link add br0 type bridge
            ip -n \(host) link set br0 mtu \(mtu) up
            ip -n \(host) addr add 10.99.0.1/24 dev br0
            ip -n \(host) addr add fd99::1/64 dev br0 nodad
            """)
    }

    /// A pod's namespace with nothing in it yet; answers its name.
    func pod() throws -> String {
        let name = "\(token)pod\(pods.count)"
        try Command.shell("ip netns add \(name); ip -n \(name) link set lo up")
        pods.append(name)
        return name
    }

    static func path(_ pod: String) -> String { "/run/netns/\(pod)" }

    /// An interface of the pod that is on the bridge: 10.99.0.NUMBER and fd99::NUMBER.
    func connect(_ pod: String, _ interface: String = "eth0", number: Int, mtu: Int = 1500) throws {
        let other = "v\(number)"
        try Command.shell(
            """
            ip -n \(host) link add \(other) mtu \(mtu) type veth peer name \(interface) mtu \(mtu) netns \(pod)
            ip -n \(host) link set \(other) master br0 up
            ip -n \(pod) addr add 10.99.0.\(number)/24 dev \(interface)
            ip -n \(pod) addr add fd99::\(number)/64 dev \(interface) nodad
            ip -n \(pod) link set \(interface) up
            """)
    }

    /// The same in the namespace of a process.
    func connect(process pid: UInt32, number: Int) throws {
        let name = "\(token)pid\(number)"
        try Command.shell("ip netns attach \(name) \(pid)")
        pods.append(name)
        try connect(name, number: number)
    }

    /// A command inside a namespace, under way.
    func start(_ namespace: String, _ script: String, output: Command.Stream = .pipe) throws -> Command {
        try Command("ip", ["netns", "exec", namespace, "/bin/sh", "-c", script], output: output)
    }

    /// What Martlet has in a pod's namespace: taps and ingress qdiscs, a line each.
    func traces(_ pod: String) throws -> [String] {
        try Command.shell(
            "ip -n \(pod) -o link | grep martlet || true; tc -n \(pod) qdisc | grep ingress || true"
        ).split(separator: "\n").map(String.init)
    }

    /// Takes all of it away.
    func remove() throws {
        for name in pods + [host] { try Command.run("ip", ["netns", "del", name]) }
    }
}
