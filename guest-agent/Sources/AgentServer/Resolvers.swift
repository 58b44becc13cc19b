import AgentAPI
import AgentContract
import CLinux
import Glibc
import GuestSystem
import LinuxSystem
import Synchronization

/// Listens in the guest on the loopback addresses of resolvers that are on the host, and has what comes there carried to them.
final class Resolvers: Sendable {
    static let port: UInt16 = 53

    private struct Entry {
        var request: AgentResolver
        var streams: TargetListener
        var datagrams: DatagramListener

        func close() {
            streams.close()
            datagrams.close()
        }
    }

    private let link: HostLink
    private let entries = Mutex<[IPAddress: Entry]>([:])

    init(link: HostLink) { self.link = link }

    /// Serves these resolvers, and no others. An address where something else listens is left to that.
    func update(_ request: AgentUpdateResolversRequest) throws(AgentFailure) {
        var wanted: [IPAddress: AgentResolver] = [:]
        for resolver in request.resolvers {
            guard let address = IPAddress(Array(resolver.address)) else {
                throw AgentFailure(.invalidArgument, "resolvers: an address of \(resolver.address.count) bytes")
            }
            wanted[address] = resolver
        }
        entries.withLock { entries in
            for (address, entry) in entries where wanted[address] != entry.request {
                entry.close()
                entries[address] = nil
            }
            for (address, resolver) in wanted where entries[address] == nil {
                do throws(SystemError) {
                    entries[address] = try listen(InternetAddress(address, port: Self.port), resolver)
                } catch {
                    Console.report("the resolver of the host is left out: \(error)")
                }
            }
        }
    }

    private func listen(_ address: InternetAddress, _ resolver: AgentResolver) throws(SystemError) -> Entry {
        let streams = SharedDescriptor(try address.bound(SOCK_STREAM))
        let datagrams = SharedDescriptor(try address.bound(SOCK_DGRAM))
        let listener = try TargetListener(streams, target: resolver.streamTarget, link: link)
        do throws(SystemError) {
            let other = try DatagramListener(datagrams, target: resolver.datagramTarget, link: link)
            return Entry(request: resolver, streams: listener, datagrams: other)
        } catch {
            listener.close()
            throw error
        }
    }
}

/// A UDP socket in the guest that stands for one on the host. Each query is carried there, and its reply back.
private final class DatagramListener: Sendable {
    /// Queries that wait for a reply; what comes beyond them is lost, as on a wire.
    private static let maximumQueries = 64
    /// How long a reply may take.
    private static let limit = Duration.seconds(10)

    private let socket: SharedDescriptor
    private let target: UInt32
    private let link: HostLink
    private let closed: SharedDescriptor
    private let queries = Mutex(0)

    /// Serves `socket` until `close`.
    init(_ socket: SharedDescriptor, target: UInt32, link: HostLink) throws(SystemError) {
        (self.socket, self.target, self.link) = (socket, target, link)
        closed = try SharedDescriptor.event()
        try startThread("target queries") { self.serve() }
    }

    func close() { closed.signal() }

    private func serve() {
        var buffer = [UInt8](repeating: 0, count: DatagramFrames.maximumLength)
        while true {
            var items = [socket, closed].map { pollfd(fd: $0.raw, events: Relay.readable, revents: 0) }
            if poll(&items, 2, -1) < 0, Glibc.errno != EINTR { return }
            if items[1].revents != 0 { return }
            var sender = sockaddr_storage()
            var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
            let count = withUnsafeMutablePointer(to: &sender) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    recvfrom(socket.raw, &buffer, buffer.count, Int32(MSG_DONTWAIT), $0, &length)
                }
            }
            if count > 0 { begin(Array(buffer[..<count]), from: sender, length) }
        }
    }

    private func begin(_ query: [UInt8], from sender: sockaddr_storage, _ length: socklen_t) {
        let isFree = queries.withLock { count in
            guard count < Self.maximumQueries else { return false }
            count += 1
            return true
        }
        guard isFree else { return }
        do throws(SystemError) {
            try startThread("target query", stackSize: 128 << 10) { [self] in
                defer { queries.withLock { $0 -= 1 } }
                var reply: [UInt8]?
                link.withConnection(to: target) { reply = Self.ask($0, query) }
                if let reply { send(reply, to: sender, length) }
            }
        } catch { queries.withLock { $0 -= 1 } }
    }

    private static func ask(_ stream: SharedDescriptor, _ query: [UInt8]) -> [UInt8]? {
        setReceiveTimeout(stream.raw, limit)
        guard let frame = DatagramFrames.encoded(query),
            frame.withUnsafeBytes({ Relay.writeAll($0, to: stream.raw) })
        else { return nil }
        var frames = DatagramFrames()
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            if let reply = frames.next() { return reply }
            let count = read(stream.raw, &buffer, buffer.count)
            if count < 0, Glibc.errno == EINTR { continue }
            guard count > 0 else { return nil }
            frames.append(buffer[..<count])
        }
    }

    private func send(_ reply: [UInt8], to receiver: sockaddr_storage, _ length: socklen_t) {
        withUnsafePointer(to: receiver) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                _ = sendto(socket.raw, reply, reply.count, Int32(MSG_NOSIGNAL | MSG_DONTWAIT), $0, length)
            }
        }
    }
}
