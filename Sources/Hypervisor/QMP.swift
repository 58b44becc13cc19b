import CLinux
import FoundationEssentials
import Glibc
import LinuxSystem
import Synchronization

/// QEMU's machine protocol, as much as the life of a VM needs: events, and commands whose answers say "done" or why not.
///
/// Source: QEMU docs/interop/qmp-spec.rst.
final class QMP: Sendable {
    /// Why the machine stopped, in QEMU's words: `guest-shutdown`, `guest-reset`, `guest-panic`, `host-qmp-quit` …
    let shutdownReason = Mutex<String?>(nil)
    private let socket: SharedDescriptor
    /// Commands under way, by their number; nil in an answer: done.
    private let commands = Mutex<(next: UInt64, waiting: [UInt64: Promise<String?>])>((1, [:]))
    /// How long QEMU may take for a command.
    private static let patience = Duration.seconds(10)

    private struct Message: Decodable {
        struct Details: Decodable {
            var reason: String?
            var desc: String?
        }
        var event: String?
        var id: UInt64?
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
        // Its answer is not waited for: QEMU has not begun to listen yet.
        let greeting = Array("{\"execute\":\"qmp_capabilities\"}\n".utf8)
        try check("qmp", "qmp_capabilities", send(socket.raw, greeting, greeting.count, Int32(MSG_NOSIGNAL)))
    }

    private func take(_ line: [UInt8], _ log: (String) -> Void) {
        guard let message = try? JSONDecoder().decode(Message.self, from: Data(line)) else {
            return log("qmp: not understood: \(String(decoding: line, as: UTF8.self))")
        }
        if message.event == "SHUTDOWN" { shutdownReason.withLock { $0 = message.data?.reason } }
        if let event = message.event { log("qmp: \(event) \(message.data?.reason ?? "")") }
        if let error = message.error { log("qmp: error: \(error.desc ?? "")") }
        if let id = message.id, message.event == nil {
            commands.withLock { $0.waiting.removeValue(forKey: id) }?.settle(message.error.map { $0.desc ?? "failed" })
        }
    }

    private struct Command: Encodable {
        var execute: String
        var arguments: [String: Argument]
        var id: UInt64
    }

    /// What a command is told.
    enum Argument: Encodable, ExpressibleByStringLiteral, ExpressibleByBooleanLiteral, ExpressibleByStringInterpolation
    {
        case text(String)
        case flag(Bool)
        case number(Int)
        init(stringLiteral value: String) { self = .text(value) }
        init(booleanLiteral value: Bool) { self = .flag(value) }
        func encode(to encoder: any Encoder) throws {
            var container = encoder.singleValueContainer()
            switch self {
            case .text(let text): try container.encode(text)
            case .flag(let flag): try container.encode(flag)
            case .number(let number): try container.encode(number)
            }
        }
    }

    /// Has QEMU execute a command, with a copy of `descriptor` where it takes one, and waits until it is done.
    func execute(_ command: String, _ arguments: [String: Argument] = [:], descriptor: Int32? = nil) throws {
        let answer = try Promise<String?>()
        let id = commands.withLock { commands in
            defer { commands.next += 1 }
            commands.waiting[commands.next] = answer
            return commands.next
        }
        defer { commands.withLock { _ = $0.waiting.removeValue(forKey: id) } }
        let bytes = Array(try JSONEncoder().encode(Command(execute: command, arguments: arguments, id: id))) + [10]
        let descriptors = descriptor.map { [$0] } ?? []
        let sent = martlet_send_descriptors(socket.raw, bytes, bytes.count, descriptors, Int32(descriptors.count), 0)
        try check("qmp", command, sent)
        guard let failure = answer.wait(timeout: Self.patience) else {
            throw SystemError("qmp", command, errno: .timedOut)
        }
        if let failure { throw HypervisorError("qemu: \(command): \(failure)") }
    }

    /// Plugs network interface `number`, whose frames go to a tap, into the spare port of that number.
    ///
    /// - Parameter vhost: the host's kernel moves the frames.
    func addNetwork(number: Int, hardwareAddress: [UInt8], queues: [Int32], vhost: Bool) throws {
        // A name that begins with a digit would be a number of QEMU's own.
        func names(_ kind: String) -> [String] { queues.indices.map { "\(kind)\(number)-\($0)" } }
        for (name, queue) in zip(names("tap"), queues) {
            try execute("getfd", ["fdname": .text(name)], descriptor: queue)
        }
        var tap: [String: Argument] = [
            "type": "tap", "id": "net\(number)", "fds": .text(names("tap").joined(separator: ":")),
            "vhost": .flag(vhost),
        ]
        if vhost {
            for name in names("vhost") {
                let device = try OwnedDescriptor.open("/dev/vhost-net", O_RDWR)
                try execute("getfd", ["fdname": .text(name)], descriptor: device.raw)
            }
            tap["vhostfds"] = .text(names("vhost").joined(separator: ":"))
        }
        try execute("netdev_add", tap)
        var device: [String: Argument] = [
            "driver": "virtio-net-pci", "id": "nic\(number)", "netdev": "net\(number)", "bus": "spare\(number)",
            "mac": .text(hardwareAddressText(hardwareAddress)), "romfile": "",
        ]
        if queues.count > 1 {
            device["mq"] = .flag(true)
            // An interrupt for each queue, the control queue and changes of the configuration.
            device["vectors"] = .number(2 * queues.count + 2)
        }
        try execute("device_add", device)
    }

    /// Takes the tap away from network interface `number`, which stays in its port: QEMU would wait without rest for a tap
    /// whose link is gone.
    func removeNetwork(number: Int) throws { try execute("netdev_del", ["id": .text("net\(number)")]) }
}
