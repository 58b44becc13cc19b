import FoundationEssentials
import Glibc
import LinuxSystem
import Synchronization

/// QEMU's machine protocol, as much as the life of a VM needs: events, and commands without an answer's data.
///
/// Source: QEMU docs/interop/qmp-spec.rst.
final class QMP: Sendable {
    /// Why the machine stopped, in QEMU's words: `guest-shutdown`, `guest-reset`, `guest-panic`, `host-qmp-quit` …
    let shutdownReason = Mutex<String?>(nil)
    private let socket: SharedDescriptor

    private struct Message: Decodable {
        struct Details: Decodable {
            var reason: String?
            var desc: String?
        }
        var event: String?
        var data: Details?
        var error: Details?
    }

    /// A line longer than this is not QMP.
    private static let maximumLine = 1 << 20

    init(socket: SharedDescriptor, log: @Sendable @escaping (String) -> Void) throws {
        self.socket = socket
        try startThread("qmp") { [self] in
            var line: [UInt8] = []
            var buffer = [UInt8](repeating: 0, count: 4096)
            while true {
                let count = read(socket.raw, &buffer, buffer.count)
                if count < 0 && errno == EINTR { continue }
                if count <= 0 { return }
                for byte in buffer.prefix(count) {
                    if byte == UInt8(ascii: "\n") {
                        take(line, log)
                        line.removeAll(keepingCapacity: true)
                    } else if line.count < QMP.maximumLine {
                        line.append(byte)
                    }
                }
            }
        }
        try execute("qmp_capabilities")
    }

    private func take(_ line: [UInt8], _ log: (String) -> Void) {
        guard let message = try? JSONDecoder().decode(Message.self, from: Data(line)) else {
            return log("qmp: not understood: \(String(decoding: line, as: UTF8.self))")
        }
        if message.event == "SHUTDOWN" { shutdownReason.withLock { $0 = message.data?.reason } }
        if let event = message.event { log("qmp: \(event) \(message.data?.reason ?? "")") }
        if let error = message.error { log("qmp: error: \(error.desc ?? "")") }
    }

    /// Asks QEMU to execute a command that takes no arguments.
    func execute(_ command: String) throws {
        let bytes = Array("{\"execute\":\"\(command)\"}\n".utf8)
        _ = try bytes.withUnsafeBytes {
            try check("qmp", command, send(socket.raw, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)))
        }
    }
}
