import CLinux
import Glibc
import LinuxSystem
import Synchronization

/// A host process that a command of an engine has started, with the standard streams that the container gets.
package struct HandedProcess: Sendable {
    let process: HostProcess
    /// stdin, stdout, stderr.
    let stdio: [SharedDescriptor]
}

/// Where commands hand host processes and descriptors to a pod's server: a Unix socket beside the one of the Task service, which
/// carries no descriptors.
///
/// A packet has the process's id, 4 bytes, little-endian, with the control socket, stdin, stdout and stderr. The reply is the number, 8
/// bytes, by which `Create` or `Exec` names it. What nobody has named goes when the command's connection ends.
package final class HandedProcesses: Sendable {
    private let table = Mutex<(next: UInt64, processes: [UInt64: HandedProcess])>((1, [:]))

    package init() {}

    /// How many nobody has named yet.
    var count: Int { table.withLock { $0.processes.count } }

    /// The path of the socket, from that of the Task service.
    package static func path(of socket: String) -> String { socket + ".p" }

    /// How a command names a process in the streams of a request.
    package static func name(_ number: UInt64) -> String { "process:\(number)" }

    /// Takes the process that a stream's name stands for.
    ///
    /// - Returns: nil for any other name.
    /// - Throws: `SandboxError.invalid` when there is none with this number.
    package func take(_ name: String) throws -> HandedProcess? {
        guard name.hasPrefix("process:") else { return nil }
        guard let number = UInt64(name.dropFirst("process:".count)),
            let process = table.withLock({ $0.processes.removeValue(forKey: number) })
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
        table.withLock { for number in numbers { $0.processes[number] = nil } }
    }

    private func receive(_ connection: SharedDescriptor) throws -> UInt64? {
        var pid: Int32 = 0
        let (count, descriptors) = try withUnsafeMutableBytes(of: &pid) {
            try connection.receive(into: $0, maximumDescriptors: 4)
        }
        guard count == 4, descriptors.count == 4 else { return nil }
        let process = HandedProcess(
            process: HostProcess(pid: Int32(littleEndian: pid), control: descriptors[0]),
            stdio: Array(descriptors[1...]))
        return table.withLock { table in
            defer { table.next += 1 }
            table.processes[table.next] = process
            return table.next
        }
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
        var number: UInt64 = 0
        do {
            let connection = SharedDescriptor(try UnixAddress.connect(path(of: socket), type: SOCK_SEQPACKET))
            var bytes = pid.littleEndian
            try withExtendedLifetime((control, stdio)) {
                try withUnsafeBytes(of: &bytes) {
                    try connection.send($0, descriptors: [control.raw] + stdio.map(\.raw))
                }
            }
            let (count, _) = try withUnsafeMutableBytes(of: &number) { try connection.receive(into: $0) }
            if count == 8 { return (UInt64(littleEndian: number), connection) }
        } catch { throw SandboxError.failed("the pod's server did not take the container's process: \(error)") }
        throw SandboxError.failed("the pod's server did not take the container's process")
    }
}
