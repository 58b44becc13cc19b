import AgentAPI
import AgentContract
import CLinux
import Glibc
import Hypervisor
import LinuxSystem
import TTRPC
import VMMControl

/// Makes connections to the agent in a VM.
struct AgentLink: Sendable {
    let machine: any VirtualMachine

    /// A connection to `port`; throws at once when nobody listens there yet.
    func connect(port: UInt32, deadline: Duration) async throws -> SharedDescriptor {
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let machine = machine
        try await onThread("vsock connect") { try machine.connect(port: port, stream: theirs.raw, deadline: deadline) }
        return ours
    }

    /// Connects as soon as the agent listens. Where the machine can't say that it does, as with a guest that has no doorbell,
    /// the connection is tried again and again; a guest in which nobody listens refuses it at once.
    func agent(within limit: Duration, while alive: @Sendable () -> Bool) async throws -> AgentServiceClient {
        let clock = ContinuousClock()
        let end = clock.now + limit
        while true {
            try await machine.agentReady(within: .milliseconds(500))
            do {
                let socket = try await connect(port: AgentPort.rpc, deadline: .seconds(2))
                return AgentServiceClient(try await TTRPCClient(connected: socket, peer: .guest))
            } catch {
                guard alive() else { throw error }
                guard clock.now < end else {
                    throw SandboxError.failed(
                        "the agent did not answer within \(limit.components.seconds) s of the start (last: \(error))")
                }
                try await Task.sleep(for: .milliseconds(10))
            }
        }
    }

    /// Opens a process's stream: a connection that begins with the stream's number.
    func stream(_ number: UInt64, deadline: Duration) async throws -> SharedDescriptor {
        let socket = try await connect(port: AgentPort.streams, deadline: deadline)
        var bytes = number.littleEndian
        try withUnsafeBytes(of: &bytes) { bytes in
            _ = try check(
                "send", "stream \(number)", send(socket.raw, bytes.baseAddress, bytes.count, Int32(MSG_NOSIGNAL)))
        }
        return socket
    }
}
