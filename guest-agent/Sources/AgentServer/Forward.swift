import AgentContract
import CLinux
import Glibc
import GuestSystem
import LinuxSystem

/// Connections of the host's to the guest's own 127.0.0.1: what comes to the pod's address of that name on the host goes here.
///
/// They come over the streams' port, with a number that names a TCP port (`StreamNumber`). On port 0 the agent sends the ports
/// that are listened on, at once and whenever they change.
enum Forward {
    /// How often the ports are read, milliseconds: the kernel reports no new one.
    private static let interval: Int32 = 500

    /// Serves a connection to its end; on a thread of its own.
    ///
    /// - Parameter address: one of the guest's, as `StreamNumber` has it; 0: the loopback interface's.
    static func serve(_ connection: SharedDescriptor, port: UInt16, address: UInt32 = 0) {
        if port == 0 { return sendPorts(connection) }
        guard let socket = address == 0 ? connect(port) : connect(address, port) else { return }
        do {
            try startThread("forward out", stackSize: 128 << 10) { pump(socket.raw, connection.raw) }
        } catch {
            return Console.report("\(error)")
        }
        pump(connection.raw, socket.raw)
    }

    /// Copies from one to the other to the end of the first, and then shuts the other down for writing.
    private static func pump(_ source: Int32, _ sink: Int32) {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Relay.bufferSize, alignment: 16)
        defer { buffer.deallocate() }
        while true {
            let count = read(source, buffer.baseAddress, buffer.count)
            if count < 0, Glibc.errno == EINTR { continue }
            if count <= 0 { break }
            if !Relay.writeAll(UnsafeRawBufferPointer(rebasing: buffer[..<count]), to: sink) {
                // The reader is gone: the sender gets that as an error.
                shutdown(source, Int32(SHUT_RD))
                break
            }
        }
        shutdown(sink, Int32(SHUT_WR))
    }

    /// To 127.0.0.1, or ::1 where that refuses.
    private static func connect(_ port: UInt16) -> SharedDescriptor? {
        if let socket = connect(0x7f00_0001, port) { return socket }
        var v6 = sockaddr_in6()
        v6.sin6_family = sa_family_t(AF_INET6)
        v6.sin6_port = port.bigEndian
        v6.sin6_addr = in6addr_loopback
        return connect(AF_INET6, &v6)
    }

    private static func connect(_ address: UInt32, _ port: UInt16) -> SharedDescriptor? {
        var v4 = sockaddr_in()
        v4.sin_family = sa_family_t(AF_INET)
        v4.sin_port = port.bigEndian
        v4.sin_addr.s_addr = address.bigEndian
        return connect(AF_INET, &v4)
    }

    private static func connect<Address>(_ family: Int32, _ address: inout Address) -> SharedDescriptor? {
        let raw = socket(family, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard raw >= 0 else { return nil }
        let socket = SharedDescriptor(OwnedDescriptor(owning: raw))
        let result = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Glibc.connect(raw, $0, socklen_t(MemoryLayout<Address>.size))
            }
        }
        return result == 0 ? socket : nil
    }

    // MARK: Ports

    /// Each list: how many, then each port; 2 bytes each, little-endian.
    private static func sendPorts(_ connection: SharedDescriptor) {
        var sent: Set<UInt16>?
        while true {
            let ports = listeningPorts()
            if ports != sent {
                var bytes: [UInt8] = []
                bytes.append(littleEndian: UInt16(clamping: ports.count))
                for port in ports.sorted() { bytes.append(littleEndian: port) }
                guard bytes.withUnsafeBytes({ Relay.writeAll($0, to: connection.raw) }) else { return }
                sent = ports
            }
            var item = pollfd(fd: connection.raw, events: Relay.readable | Relay.halfClosed, revents: 0)
            if poll(&item, 1, interval) > 0 { return }
        }
    }

    /// TCP ports with a listener that 127.0.0.1 or ::1 reaches (proc(5), /proc/net/tcp).
    static func listeningPorts() -> Set<UInt16> {
        var ports: Set<UInt16> = []
        for file in ["/proc/net/tcp", "/proc/net/tcp6"] {
            guard let text = try? readText(file) else { continue }
            ports.formUnion(listeningPorts(text))
        }
        return ports
    }

    static func listeningPorts(_ text: String) -> Set<UInt16> {
        var ports: Set<UInt16> = []
        for line in text.split(separator: "\n").dropFirst() {
            let fields = line.split(separator: " ")
            // Number, local address, remote address, state: 0A is LISTEN.
            guard fields.count > 3, fields[3] == "0A", let colon = fields[1].firstIndex(of: ":"),
                let port = UInt16(fields[1][fields[1].index(after: colon)...], radix: 16)
            else { continue }
            // Hexadecimal words in the host's byte order: any address, 127.0.0.1, the same as IPv6 has it, ::1.
            let address = fields[1][..<colon]
            let isAny = address.allSatisfy { $0 == "0" }
            let isLoopback = address == "0100007F" || address.hasSuffix("FFFF00000100007F")
            if isAny || isLoopback || address == "00000000000000000000000001000000" { ports.insert(port) }
        }
        return ports
    }
}
