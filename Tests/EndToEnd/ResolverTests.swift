import Glibc
import LinuxSystem
import OCISpec
import Testing

extension Containers {
    /// Loopback addresses that resolv.conf names.
    @Suite struct ResolverTests {
        /// Answers what it gets, in capitals, on port 53 of the addresses given: UDP and TCP.
        private static let server = """
            import select, socket, sys
            udp, tcp = [], []
            for a in sys.argv[1:]:
                family = socket.AF_INET6 if ':' in a else socket.AF_INET
                for kind, l in (socket.SOCK_DGRAM, udp), (socket.SOCK_STREAM, tcp):
                    s = socket.socket(family, kind)
                    s.bind((a, 53))
                    l.append(s)
            for s in tcp: s.listen(64)
            print('ready', flush=True)
            while True:
                for s in select.select(udp + tcp, [], [])[0]:
                    if s in udp:
                        data, sender = s.recvfrom(65535)
                        s.sendto(data.upper(), sender)
                    else:
                        c, _ = s.accept()
                        data = b''
                        while part := c.recv(65536): data += part
                        c.sendall(data.upper())
                        c.close()
            """

        @Test func whatTheNamespaceServesAnswersInTheGuest() throws {
            try Scene.play { scene in
                let net = try Net(scene)
                defer { try? net.remove() }
                let pod = try net.pod()
                let program = try scene.write("server.py", Self.server)
                let server = try Command(
                    "ip", ["netns", "exec", pod, "python3", program, "127.0.0.11", "127.0.0.12", "::1"])
                try server.output?.wait(for: "ready\n")
                defer {
                    server.child.signal(SIGKILL)
                    _ = try? server.finish()
                }
                let names = try scene.write(
                    "resolv.conf", "nameserver 127.0.0.11\nnameserver ::1\nnameserver 127.0.0.53\n")
                let script = """
                    echo over tcp | nc 127.0.0.11 53; echo over v6 | nc ::1 53
                    sockets ask 127.0.0.11 'over udp'; sockets ask ::1 'udp v6'
                    for i in $(seq 40); do sockets ask 127.0.0.11 many & done | grep -c MANY
                    dd if=/dev/zero bs=1M count=2 2>/dev/null | tr '\\0' x | nc 127.0.0.11 53 | md5sum
                    # Nobody named it.
                    echo no | nc 127.0.0.12 53 || echo refused
                    # Nobody serves it on the host: it is the guest's.
                    httpd -p 127.0.0.53:53 && nc 127.0.0.53 53 </dev/null && echo own
                    """
                let bundle = try scene.bundle(script: script) { spec in
                    for index in spec.linux?.namespaces.indices ?? 0..<0
                    where spec.linux?.namespaces[index].kind == .network {
                        spec.linux?.namespaces[index].path = Net.path(pod)
                    }
                    spec.process?.capabilities?.bounding.append("CAP_NET_BIND_SERVICE")
                    spec.process?.capabilities?.effective.append("CAP_NET_BIND_SERVICE")
                    spec.process?.capabilities?.permitted.append("CAP_NET_BIND_SERVICE")
                    spec.mounts.append(
                        Mount(destination: "/etc/resolv.conf", type: "bind", source: names, options: ["bind"]))
                }
                try Program.install("sockets", in: bundle)
                let outcome = try scene.run(bundle: bundle)
                let sum = try Command.shell("head -c 2097152 /dev/zero | tr '\\0' X | md5sum").trimmed
                #expect(
                    outcome.lines == ["OVER TCP", "OVER V6", "OVER UDP", "UDP V6", "40", sum, "refused", "own"],
                    "\(outcome.text)\(outcome.errorText)")
            }
        }
    }
}
