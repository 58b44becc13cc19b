import AgentContract
import CLinux
import Glibc
import GuestSystem
import LinuxSystem
import Synchronization

/// The way to the targets on the host: asks the host for connections, which it makes. See `TargetMessage`.
final class HostLink: Sendable {
    private struct State {
        /// The host's stream for requests, once it is there.
        var requests: SharedDescriptor?
        /// Of the next connection.
        var next: UInt64 = 1
        /// Those that the host was asked for; nil when it does not make one.
        var waiting: [UInt64: Promise<SharedDescriptor?>] = [:]
        /// Connections that wait or are in use.
        var count = 0
    }

    /// How long the host may take to connect.
    private static let limit = Duration.seconds(30)

    private let state = Mutex(State())
    /// Held while a request is written.
    private let writing = Mutex(())

    /// Takes a stream of the host's; on a thread of its own.
    ///
    /// - Parameter connection: the stream's number (`StreamNumber.targetConnection(of:)`).
    func serve(_ stream: SharedDescriptor, connection: UInt64) {
        if connection == 0 { return readRefusals(stream) }
        // One that nobody waits for any more is closed.
        settle(connection, stream)
    }

    /// Has `body` use a connection to a target, and ends the connection then. Blocks.
    ///
    /// - Returns: false when there is none: the target is gone, its server does not answer, or there are too many connections.
    @discardableResult
    func withConnection(to target: UInt32, _ body: (SharedDescriptor) -> Void) -> Bool {
        guard let fresh = try? Promise<SharedDescriptor?>() else { return false }
        let request = state.withLock { state -> (UInt64, SharedDescriptor)? in
            guard let requests = state.requests, state.count < TargetMessage.maximumConnections else { return nil }
            defer { state.next += 1 }
            state.count += 1
            state.waiting[state.next] = fresh
            return (state.next, requests)
        }
        guard let (number, requests) = request else { return false }
        defer { state.withLock { $0.count -= 1 } }
        if !send(TargetMessage(.connect, target: target, connection: number), requests) { settle(number, nil) }
        let answer = fresh.wait(timeout: Self.limit)
        state.withLock { $0.waiting[number] = nil }
        // The host may have answered just when the time was over.
        guard let stream = answer ?? fresh.current ?? nil else { return false }
        body(stream)
        return true
    }

    /// Tells the host that a process has passed a descriptor to a target.
    func tellOfDescriptor(_ target: UInt32) {
        let (number, requests) = state.withLock { state in
            defer { state.next += 1 }
            return (state.next, state.requests)
        }
        if let requests { _ = send(TargetMessage(.passedDescriptor, target: target, connection: number), requests) }
    }

    private func send(_ message: TargetMessage, _ requests: SharedDescriptor) -> Bool {
        writing.withLock { _ in message.encoded.withUnsafeBytes { Relay.writeAll($0, to: requests.raw) } }
    }

    /// Each is the number of a connection that the host does not make, 8 bytes, little-endian. Until the host closes the stream.
    private func readRefusals(_ stream: SharedDescriptor) {
        state.withLock { $0.requests = stream }
        while true {
            var number: UInt64 = 0
            let count = withUnsafeMutableBytes(of: &number) {
                recv(stream.raw, $0.baseAddress, $0.count, Int32(MSG_WAITALL))
            }
            if count < 0, Glibc.errno == EINTR { continue }
            guard count == MemoryLayout<UInt64>.size else { break }
            settle(UInt64(littleEndian: number), nil)
        }
        let waiting = state.withLock { state in
            if state.requests === stream { state.requests = nil }
            return Array(state.waiting.keys)
        }
        for number in waiting { settle(number, nil) }
    }

    private func settle(_ connection: UInt64, _ stream: SharedDescriptor?) {
        state.withLock { $0.waiting.removeValue(forKey: connection) }?.settle(stream)
    }
}
