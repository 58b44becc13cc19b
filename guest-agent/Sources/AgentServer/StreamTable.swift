import AgentAPI
import AgentContract
import CLinux
import Glibc
import GuestSystem
import LinuxSystem
import Synchronization

/// The connections that the host made for processes' streams, by number. A connection and the process it is for come in
/// any order.
final class StreamTable: Sendable {
    /// A connection that is there or will come; nil when it won't.
    typealias Slot = Promise<SharedDescriptor?>

    /// For streams to targets on the host.
    let link = HostLink()
    private let slots = Mutex<[UInt64: Slot]>([:])

    /// The place of stream `number`, which is not 0.
    func slot(_ number: UInt64) throws(SystemError) -> Slot {
        let fresh = try Slot()
        return slots.withLock { slots in
            if let slot = slots[number] { return slot }
            slots[number] = fresh
            return fresh
        }
    }

    /// Forgets a stream that is done with.
    func release(_ number: UInt64) {
        slots.withLock { $0[number] = nil }
    }

    /// Closes the connections made for a process that never came to be.
    func discard(_ streams: AgentStreams) {
        for number in [streams.stdin, streams.stdout, streams.stderr] { release(number) }
    }

    /// Closes the connection of a stream that nobody serves: now, or when it comes.
    func refuse(_ number: UInt64) {
        guard number != 0, let slot = try? slot(number) else { return }
        Task {
            let missing = Task {
                try await Task.sleep(for: Self.longestWait)
                slot.settle(nil)
            }
            _ = await slot.value()
            missing.cancel()
            release(number)
        }
    }

    /// Closes the connections of a process that has ended.
    func refuse(_ streams: AgentStreams) {
        for number in [streams.stdin, streams.stdout, streams.stderr] { refuse(number) }
    }

    /// How long a connection may take to come, where it holds something up.
    static let longestWait = Duration.seconds(10)

    /// Stops waiting for the connection of a stream.
    func abandon(_ number: UInt64) {
        slots.withLock { $0[number] }?.settle(nil)
    }

    /// Accepts the host's connections for ever; on a thread of its own.
    func serve(_ listener: SharedDescriptor) {
        while true {
            let raw = martlet_accept(listener.raw)
            if raw < 0 {
                if Glibc.errno == EINTR || Glibc.errno == ECONNABORTED { continue }
                Console.report("\(SystemError.last("accept", "a stream"))")
                // Out of descriptors or memory: both may come back.
                usleep(100_000)
                continue
            }
            let connection = SharedDescriptor(OwnedDescriptor(owning: raw))
            do {
                // One that never sends its number must not block the others.
                try startThread("stream") { self.admit(connection) }
            } catch {
                Console.report("\(error)")
            }
        }
    }

    /// Reads the number that opens a connection: 8 bytes, little-endian.
    private func admit(_ connection: SharedDescriptor) {
        setReceiveTimeout(connection.raw, .seconds(10))
        var bytes = [UInt8](repeating: 0, count: StreamNumber.encodedSize)
        var filled = 0
        while filled < bytes.count {
            let count = bytes.withUnsafeMutableBytes {
                recv(connection.raw, $0.baseAddress.map { $0 + filled }, $0.count - filled, 0)
            }
            if count < 0, Glibc.errno == EINTR { continue }
            guard count > 0 else { return }
            filled += count
        }
        setReceiveTimeout(connection.raw, .zero)
        let number = bytes.reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        if number == StreamNumber.heartbeat { return Pulse.serve(connection) }
        if let port = StreamNumber.loopbackPort(number) {
            return Forward.serve(connection, port: port, address: StreamNumber.loopbackAddress(number))
        }
        if let target = StreamNumber.targetConnection(of: number) {
            return link.serve(connection, connection: target)
        }
        guard number != 0, let slot = try? slot(number), slot.settle(connection) else {
            Console.report("a second connection for stream \(number) was refused")
            return
        }
    }
}
