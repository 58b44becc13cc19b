import CLinux
import Glibc
import LinuxSystem
import Synchronization

/// A host process that a command of an engine has started, with the standard streams that the container gets.
package struct HandedProcess: Sendable {
    let process: HostProcess
    /// stdin, stdout, stderr.
    let stdio: [SharedDescriptor]
    /// Whether they are a command's own, with a terminal of its own that makes new lines of line feeds.
    package var keepsLineFeeds = false
}

/// Where commands hand host processes and descriptors to a pod's server: a Unix socket beside the one of the Task service, which
/// carries no descriptors.
///
/// A packet has the process's id, 4 bytes, little-endian, with the control socket, stdin, stdout and stderr; or the id 0 with one descriptor,
/// a stream. The reply is the number, 8 bytes, by which a request names it. What nobody has named goes when the command's connection ends.
package final class HandedProcesses: Sendable {
    private enum Handed {
        case process(HandedProcess)
        case stream(SharedDescriptor)
    }

    private let table = Mutex<(next: UInt64, entries: [UInt64: Handed])>((1, [:]))

    package init() {}

    /// How many nobody has named yet.
    var count: Int { table.withLock { $0.entries.count } }

    /// The path of the socket, from that of the Task service.
    package static func path(of socket: String) -> String { socket + ".p" }

    /// How a command names a process in the streams of a request.
    package static func name(_ number: UInt64) -> String { "process:\(number)" }

    /// How a command names a stream in a request.
    package static func streamName(_ number: UInt64) -> String { "stream:\(number)" }

    /// Takes the stream that a name stands for.
    ///
    /// - Throws: `SandboxError.invalid` when there is none of this name.
    package func takeStream(_ name: String) throws -> SharedDescriptor {
        guard name.hasPrefix("stream:"), let number = UInt64(name.dropFirst("stream:".count)),
            case .stream(let stream)? = table.withLock({ $0.entries.removeValue(forKey: number) })
        else { throw SandboxError.invalid("stream: \(name): no such stream was handed in") }
        return stream
    }

    /// Takes the process that a stream's name stands for.
    ///
    /// - Returns: nil for any other name.
    /// - Throws: `SandboxError.invalid` when there is none with this number.
    package func take(_ name: String) throws -> HandedProcess? {
        guard name.hasPrefix("process:") else { return nil }
        guard let number = UInt64(name.dropFirst("process:".count)),
            case .process(let process)? = table.withLock({ $0.entries.removeValue(forKey: number) })
        else { throw SandboxError.invalid("stdin: \(name): no such process was handed in") }
        return process
    }

    // MARK: The server's side

    /// Takes what comes to a listening socket, until this process ends.
    package func serve(listening listener: SharedDescriptor) throws {
        try startThread("handed processes") { [self] in
            acceptConnections(listener) { connection in
                try? startThread("handed process", stackSize: 64 << 10) { self.serve(connection) }
            }
        }
    }

    private func serve(_ connection: SharedDescriptor) {
        var numbers: [UInt64] = []
        while let number = try? receive(connection) {
            numbers.append(number)
            var reply = number.littleEndian
            guard
                withUnsafeBytes(of: &reply, { send(connection.raw, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) })
                    == 8
            else { break }
        }
        table.withLock { for number in numbers { $0.entries[number] = nil } }
    }

    private func receive(_ connection: SharedDescriptor) throws -> UInt64? {
        var pid: Int32 = 0
        let (count, descriptors) = try withUnsafeMutableBytes(of: &pid) {
            try connection.receive(into: $0, maximumDescriptors: 4)
        }
        guard count == 4, let handed = Self.handed(Int32(littleEndian: pid), descriptors) else { return nil }
        return table.withLock { table in
            defer { table.next += 1 }
            table.entries[table.next] = handed
            return table.next
        }
    }

    private static func handed(_ pid: Int32, _ descriptors: [SharedDescriptor]) -> Handed? {
        if pid == 0 { return descriptors.count == 1 ? .stream(descriptors[0]) : nil }
        guard descriptors.count == 4 else { return nil }
        return .process(
            HandedProcess(
                process: HostProcess(pid: pid, control: descriptors[0]), stdio: Array(descriptors[1...])))
    }

    // MARK: The command's side

    /// Hands a process in.
    ///
    /// - Parameters:
    ///   - socket: of the pod's Task service.
    ///   - control: the other side of the process's control socket.
    /// - Returns: its number, and the connection, which must live until the process was named.
    package static func hand(
        _ pid: pid_t, control: SharedDescriptor, stdio: [SharedDescriptor], to socket: String
    ) throws -> (number: UInt64, connection: SharedDescriptor) {
        do { return try hand(pid, [control] + stdio, to: socket) } catch {
            throw SandboxError.failed("the pod's server did not take the container's process: \(error)")
        }
    }

    /// Hands a stream in.
    ///
    /// - Returns: its number, and the connection, which must live until the stream was named.
    package static func hand(
        stream: SharedDescriptor, to socket: String
    ) throws -> (number: UInt64, connection: SharedDescriptor) {
        do { return try hand(0, [stream], to: socket) } catch {
            throw SandboxError.failed("the pod's server did not take a stream: \(error)")
        }
    }

    private static func hand(
        _ pid: pid_t, _ descriptors: [SharedDescriptor], to socket: String
    ) throws -> (number: UInt64, connection: SharedDescriptor) {
        let connection = SharedDescriptor(try UnixAddress.connect(path(of: socket), type: SOCK_SEQPACKET))
        var bytes = pid.littleEndian
        try withExtendedLifetime(descriptors) {
            try withUnsafeBytes(of: &bytes) { try connection.send($0, descriptors: descriptors.map(\.raw)) }
        }
        var number: UInt64 = 0
        let (count, _) = try withUnsafeMutableBytes(of: &number) { try connection.receive(into: $0) }
        guard count == 8 else { throw SystemError("receive", "its number", errno: .connectionReset) }
        return (UInt64(littleEndian: number), connection)
    }
}
