import AgentContract
import CLinux
import Glibc
import LinuxSystem
import Logging
import Synchronization

/// Has a connection that is made to 127.0.0.1 inside the pod's network namespace on the host reach the guest's 127.0.0.1, as
/// it does where containers are processes: engines forward ports in this way.
///
/// The agent tells on which TCP ports somebody listens; on these this process listens too, in the pod's namespace.
final class LoopbackForwarding: Sendable {
    private let namespace: NetworkNamespace
    private let link: AgentLink
    private let limit: Duration
    private let logger: Logger
    /// The agent's word of the ports.
    private let ports: SharedDescriptor
    /// By port; nil when all is over.
    private let listeners = Mutex<[UInt16: SharedDescriptor]?>([:])

    /// - Parameter limit: how long the agent may take for a connection.
    init(_ namespace: NetworkNamespace, _ link: AgentLink, limit: Duration, logger: Logger) async throws {
        self.namespace = namespace
        self.link = link
        self.limit = limit
        self.logger = logger
        ports = try await link.stream(StreamNumber.loopback(port: 0), deadline: limit)
        try startThread("forwarded ports") { [self] in
            while let ports = nextPorts() { follow(ports) }
        }
    }

    /// Closes what listens here. Connections under way end with the guest.
    func end() {
        shutdown(ports.raw, Int32(SHUT_RDWR))
        let open = listeners.withLock { listeners in
            defer { listeners = nil }
            return listeners ?? [:]
        }
        for listener in open.values { shutdown(listener.raw, Int32(SHUT_RDWR)) }
    }

    /// The next list that the agent sends: how many, then each port, 2 bytes each, little-endian. nil at the end.
    private func nextPorts() -> Set<UInt16>? {
        guard let count = nextNumber() else { return nil }
        var result: Set<UInt16> = []
        for _ in 0..<count {
            guard let port = nextNumber() else { return nil }
            if port != 0 { result.insert(port) }
        }
        return result
    }

    private func nextNumber() -> UInt16? {
        var number: UInt16 = 0
        let count = withUnsafeMutableBytes(of: &number) { recv(ports.raw, $0.baseAddress, 2, Int32(MSG_WAITALL)) }
        return count == 2 ? UInt16(littleEndian: number) : nil
    }

    private func follow(_ ports: Set<UInt16>) {
        let known = listeners.withLock { Set(($0 ?? [:]).keys) }
        for port in known.subtracting(ports) {
            let listener = listeners.withLock { $0?.removeValue(forKey: port) }
            if let listener { shutdown(listener.raw, Int32(SHUT_RDWR)) }
        }
        for port in ports.subtracting(known).sorted() {
            do {
                let listener = try listen(port)
                guard
                    listeners.withLock({ listeners in
                        listeners?[port] = listener
                        return listeners != nil
                    })
                else { return }
                try startThread("forward \(port)", stackSize: 128 << 10) { [self] in accept(listener, port) }
            } catch {
                logger.debug("network: port \(port) of the pod is not forwarded from 127.0.0.1: \(error)")
            }
        }
    }

    private func listen(_ port: UInt16) throws(SystemError) -> SharedDescriptor {
        try namespace.run { () throws(SystemError) in
            SharedDescriptor(try InternetAddress(.loopback, port: port).bound(SOCK_STREAM))
        }
    }

    /// Until the listener is shut down.
    private func accept(_ listener: SharedDescriptor, _ port: UInt16) {
        acceptConnections(listener) { client in
            Task { [self] in
                do { try await carry(client, port) } catch { logger.debug("network: forward port \(port): \(error)") }
            }
        }
    }

    private func carry(_ client: SharedDescriptor, _ port: UInt16) async throws {
        try client.setNonBlocking(true)
        let guest = try await link.stream(StreamNumber.loopback(port: port), deadline: limit)
        let input = try StreamRelay(name: "forward in", engine: client, guest: guest, direction: .toGuest)
        let output = try StreamRelay(name: "forward out", engine: client, guest: guest, direction: .fromGuest)
        await output.finish()
        input.cancel()
        await input.finish()
        shutdown(client.raw, Int32(SHUT_RDWR))
    }
}
