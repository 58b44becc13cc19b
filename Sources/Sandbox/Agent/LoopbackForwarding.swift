import AgentContract
import Glibc
import LinuxSystem
import Logging

/// Has a connection that is made inside the pod's network namespace on the host to 127.0.0.1 reach the guest's 127.0.0.1, and one to the
/// pod's own address the guest's, as it does where containers are processes: engines forward ports in this way (rootless ones by the
/// pod's address).
///
/// The agent tells on which TCP ports somebody listens; on these this process listens too, in the pod's namespace.
final class LoopbackForwarding: Sendable {
    private let stopped: SharedDescriptor

    /// - Parameters:
    ///   - pod: its id, for messages.
    ///   - limit: how long the agent may take for a connection.
    init(
        of pod: String, _ namespace: NetworkNamespace, _ link: AgentLink, limit: Duration, logger: Logger
    ) async throws {
        let ports = try await link.stream(StreamNumber.loopback(port: 0), deadline: limit)
        let stopped = try SharedDescriptor.event()
        self.stopped = stopped
        let log = PacedLog(logger)
        try startThread("forwarded ports") {
            do {
                let listeners = try PortListeners(of: pod, namespace, ports, until: stopped, log) {
                    client, port, address in
                    Task {
                        do { try await Self.carry(client, port, address, link, limit) } catch {
                            log.write(.debug, "network: forward port \(port): \(error)")
                        }
                    }
                }
                try listeners.run()
            } catch { logger.warning("network: 127.0.0.1 does not reach the pod's ports any more: \(error)") }
        }
    }

    /// Closes what listens here. Connections under way end with the guest.
    func end() { stopped.signal() }

    private static func carry(
        _ client: SharedDescriptor, _ port: UInt16, _ address: UInt32, _ link: AgentLink, _ limit: Duration
    ) async throws {
        try client.setNonBlocking(true)
        let guest = try await link.stream(StreamNumber.loopback(port: port, address: address), deadline: limit)
        let input = try StreamRelay(name: "forward in", engine: client, guest: guest, direction: .toGuest)
        let output = try StreamRelay(name: "forward out", engine: client, guest: guest, direction: .fromGuest)
        await output.finish()
        input.cancel()
        await input.finish()
        shutdown(client.raw, Int32(SHUT_RDWR))
    }
}
