import Glibc
import LinuxSystem

/// A machine beside the pods of a `Net`, at its host's address: answers on TCP port 9000 with the sender's address and words, and on
/// UDP port 53, with 192.0.2.7 for a name and with other texts in capitals.
final class NetworkPeer {
    private static let program = """
        import select, socket
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(('0.0.0.0', 53))
        tcp = socket.create_server(('0.0.0.0', 9000))
        print('ready', flush=True)
        while True:
            for s in select.select([udp, tcp], [], [])[0]:
                if s is tcp:
                    c, peer = tcp.accept()
                    with c: c.sendall(peer[0].encode() + b' said ' + c.recv(4096))
                    continue
                data, sender = udp.recvfrom(65535)
                if data.isascii() and data.decode().isprintable():
                    udp.sendto(data.upper(), sender)
                    continue
                end = 12
                while data[end]: end += data[end] + 1
                question = data[12:end + 5]
                isA = question[-4:-2] == b'\\0\\1'
                answer = b'\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4\\xc0\\0\\2\\7' if isA else b''
                udp.sendto(data[:2] + b'\\x81\\x80\\0\\1\\0' + bytes([isA]) + b'\\0\\0\\0\\0' + question + answer, sender)
        """

    private let net: Net
    private let server: Command

    init(_ net: Net, _ scene: Scene) throws {
        self.net = net
        let file = try scene.write("peer-\(scene.newID()).py", Self.program)
        server = try net.start(net.host, "exec python3 \(file)")
        try server.output?.wait(for: "ready\n")
    }

    /// Connects to a server, which may not be there yet, and sends it a line.
    func say(_ text: String, to address: String, port: Int) throws {
        let script =
            "for i in $(seq 100); do echo \(text) | busybox nc -w 5 \(address) \(port) && exit; sleep 0.1; done; exit 1"
        let outcome = try net.start(net.host, script).finish()
        guard outcome.code == 0 else { throw LabError("\(address):\(port): \(outcome.errorText)") }
    }

    func end() {
        server.child.signal(SIGKILL)
        _ = try? server.finish()
    }
}
