import Glibc
import Hypervisor
import LinuxSystem
import Synchronization

/// Two network namespaces with a veth pair between them: the host's end and the pod's. They are gone when the value is released.
final class VethPair: Sendable {
    private static let hostAddress = "10.99.0.1", podAddress = "10.99.0.2"

    private let host: NetworkNamespace
    private let pod: NetworkNamespace

    /// - Parameter mtu: the MTU of both ends, bytes.
    init(mtu: UInt32) throws {
        host = try .make()
        pod = try .make()
        let (ours, theirs) = (
            try host.run { () throws(SystemError) in try RouteSocket() },
            try pod.run { () throws(SystemError) in try RouteSocket() }
        )
        try ours.makeVeth("host", peer: "eth0")
        guard let peer = try ours.link(named: "eth0") else { throw BenchError("the veth has no other end") }
        try ours.setLink(peer.index, namespace: pod)
        for (socket, name, address) in [(ours, "host", Self.hostAddress), (theirs, "eth0", Self.podAddress)] {
            guard let link = try socket.link(named: name), let prefix = IPPrefix("\(address)/24") else {
                throw BenchError("no link \(name)")
            }
            try socket.setLink(link.index, mtu: mtu)
            try socket.add(LinkAddress(link: link.index, prefix: prefix))
            try socket.setLink(link.index, up: true)
        }
    }

    /// The path of the pod's namespace for other processes, valid as long as this value exists.
    var podPath: String { "/proc/\(getpid())/fd/\(pod.descriptor.raw)" }

    /// Runs iperf3 at the host's end against the server in the pod.
    func iperf3(_ program: String, seconds: Int, _ options: [String], within limit: Duration) throws -> IperfReport {
        let arguments =
            ["--net=/proc/self/fd/3", program, "--client", Self.podAddress, "--time", "\(seconds)", "--json"] + options
        let (client, output) = try ChildProcess.withPipe(
            "iperf3",
            .init(
                executable: "/usr/bin/nsenter", arguments: arguments, environment: RunPhases.environment(),
                descriptors: [-1, ChildProcess.pipe, ChildProcess.pipe, host.descriptor.raw], diesWithParent: true))
        let lines = Mutex<[String]>([])
        let reader = try Console("iperf3", source: output) { line in lines.withLock { $0.append(line) } }
        guard client.waitForEnd(timeout: limit) != nil else {
            client.signal(SIGKILL)
            throw BenchError("iperf3 did not end within \(limit)")
        }
        reader.waitForEnd(timeout: .seconds(5))
        return try IperfReport(lines.withLock { $0.joined(separator: "\n") })
    }
}
