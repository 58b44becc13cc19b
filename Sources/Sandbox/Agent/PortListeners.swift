import CLinux
import Glibc
import LinuxSystem

/// Listens on ports in a network namespace that a guest names, all on one thread.
///
/// The guest sends lists of ports. What it can cost is bounded: so many ports, and so many reads of lists in a second; beyond that
/// it waits, since nobody reads its stream.
///
/// Belongs to the thread that makes it.
final class PortListeners {
    /// Most ports at a time.
    static let maximum = 128
    /// Of a list: how many ports there are, and each of them, 2 bytes each.
    private static let longestList = 2 + 2 * 65535

    private let pod: String
    private let namespace: NetworkNamespace
    private let ports: SharedDescriptor
    private let stopped: SharedDescriptor
    private let log: PacedLog
    private let take: (SharedDescriptor, UInt16, UInt32) -> Void
    private let loop: EventLoop
    private var listeners: [UInt16: SharedDescriptor] = [:]
    /// Of the lists: what has not been understood yet.
    private var received: [UInt8] = []
    private var buffer = [UInt8](repeating: 0, count: 64 << 10)
    private var pace = Pace(burst: 8, perSecond: 2)
    /// When the next list is read, if that is not now.
    private var resumes: ContinuousClock.Instant?
    private var hasWarned = false
    private var isOver = false

    /// - Parameters:
    ///   - pod: its id, for messages.
    ///   - ports: the guest's stream of lists; it becomes non-blocking.
    ///   - stopped: an eventfd; all ends when it is signalled.
    ///   - take: gets each connection, its port, and which address of the namespace's it was made to, as `StreamNumber` has it.
    init(
        of pod: String, _ namespace: NetworkNamespace, _ ports: SharedDescriptor, until stopped: SharedDescriptor,
        _ log: PacedLog, take: @escaping (SharedDescriptor, UInt16, UInt32) -> Void
    ) throws(SystemError) {
        self.pod = pod
        self.namespace = namespace
        self.ports = ports
        self.stopped = stopped
        self.log = log
        self.take = take
        loop = try EventLoop()
        try ports.setNonBlocking(true)
    }

    /// Returns when it is stopped, or the guest's stream has ended.
    func run() throws(SystemError) {
        try loop.add(stopped.raw, .readable) { [unowned self] _ in isOver = true }
        try watchPorts()
        while !isOver {
            let now = ContinuousClock.now
            if let resumes, resumes <= now {
                self.resumes = nil
                try watchPorts()
            }
            let wait = resumes.map { ($0 - now) / .milliseconds(1) }
            try loop.runOnce(timeoutMilliseconds: wait.map { Int32($0) + 1 } ?? -1)
        }
        for port in Array(listeners.keys) { close(port) }
    }

    private func watchPorts() throws(SystemError) {
        try loop.add(ports.raw, .readable) { [unowned self] _ in read() }
    }

    /// Reads once, follows the last list that has come, and rests if that was too soon.
    private func read() {
        let count = recv(ports.raw, &buffer, buffer.count, 0)
        if count < 0, [EAGAIN, EINTR].contains(errno) { return }
        guard count > 0 else {
            isOver = true
            return
        }
        received += buffer[..<count]
        if let list = lastList() { follow(list) }
        let wait = pace.take()
        guard wait > .zero else { return }
        loop.remove(ports.raw)
        resumes = .now + wait
    }

    /// Takes complete lists out of what was received; the last of them.
    private func lastList() -> Set<UInt16>? {
        func number(_ at: Int) -> UInt16 { UInt16(received[at]) | UInt16(received[at + 1]) << 8 }
        var start = 0
        var last: Range<Int>?
        while received.count - start >= 2 {
            let end = start + 2 + 2 * Int(number(start))
            guard end <= received.count else { break }
            last = (start + 2)..<end
            start = end
        }
        defer { received.removeFirst(start) }
        return last.map { Set(stride(from: $0.lowerBound, to: $0.upperBound, by: 2).map(number).filter { $0 != 0 }) }
    }

    private func follow(_ wanted: Set<UInt16>) {
        for port in Set(listeners.keys).subtracting(wanted) { close(port) }
        var new = wanted.subtracting(listeners.keys).sorted()[...]
        let room = Self.maximum - listeners.count
        if new.count > room {
            new = new.prefix(room)
            if !hasWarned {
                log.write(
                    .warning,
                    "network: pod \(pod) listens on \(wanted.count) ports: 127.0.0.1 of its network namespace reaches "
                        + "\(Self.maximum) of them")
            }
            hasWarned = true
        }
        if new.isEmpty { return }
        for (port, socket) in zip(new, open(Array(new))) {
            do throws(SystemError) {
                let listener = try socket.get()
                try listener.setNonBlocking(true)
                try loop.add(listener.raw, .readable) { [unowned self] _ in accept(listener, port) }
                listeners[port] = listener
            } catch { log.write(.debug, "network: port \(port) of the pod is not forwarded from 127.0.0.1: \(error)") }
        }
    }

    private func open(_ ports: [UInt16]) -> [Result<SharedDescriptor, SystemError>] {
        do throws(SystemError) {
            return try namespace.run { () throws(SystemError) in
                ports.map { port in
                    do throws(SystemError) {
                        return .success(SharedDescriptor(try Self.listen(port)))
                    } catch { return .failure(error) }
                }
            }
        } catch { return ports.map { _ in .failure(error) } }
    }

    /// On all addresses, or on 127.0.0.1 where somebody else has the port on another one.
    private static func listen(_ port: UInt16) throws(SystemError) -> OwnedDescriptor {
        do throws(SystemError) {
            return try InternetAddress(.anyIPv4, port: port).bound(SOCK_STREAM)
        } catch {
            guard error.errno == .addressInUse else { throw error }
            return try InternetAddress(.loopback, port: port).bound(SOCK_STREAM)
        }
    }

    private func close(_ port: UInt16) {
        guard let listener = listeners.removeValue(forKey: port) else { return }
        loop.remove(listener.raw)
        // Whoever is about to connect learns of it at once.
        shutdown(listener.raw, Int32(SHUT_RDWR))
    }

    private func accept(_ listener: SharedDescriptor, _ port: UInt16) {
        let raw = martlet_accept(listener.raw)
        if raw >= 0 {
            let client = SharedDescriptor(OwnedDescriptor(owning: raw))
            take(client, port, Self.destination(of: client))
        } else if [EMFILE, ENFILE, ENOMEM, ENOBUFS].contains(errno) {
            usleep(100_000)
        }
    }

    /// The address that a connection was made to; 0: one of 127.0.0.0/8.
    private static func destination(of client: SharedDescriptor) -> UInt32 {
        var address = sockaddr_in()
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let result = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(client.raw, $0, &length) }
        }
        let number = UInt32(bigEndian: address.sin_addr.s_addr)
        return result == 0 && number >> 24 != 127 ? number : 0
    }
}
