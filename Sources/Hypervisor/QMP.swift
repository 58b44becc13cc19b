import CLinux
import FoundationEssentials
import Glibc
import LinuxSystem
import Synchronization

/// QEMU's machine protocol, as much as the life of a VM needs: events, and commands whose replies say "done" or why not.
///
/// Source: QEMU docs/interop/qmp-spec.rst.
final class QMP: QEMUMonitor {
    private let socket: SharedDescriptor
    /// Commands under way, by their number.
    private let commands = Mutex<(next: UInt64, waiting: [UInt64: Promise<Reply>])>((1, [:]))
    /// The guest can cause some of the events.
    private let logPace = Mutex(Pace(burst: 100, perSecond: 10))
    /// How long QEMU may take for a command.
    static let timeout = Duration.seconds(10)

    private enum Reply: Sendable {
        case done(Answer)
        case failed(String)
    }

    /// What a command returns, as much of it as is used. What has another form is left out.
    struct Answer: Decodable, Sendable {
        /// Of `query-balloon`: bytes that the guest has.
        var actual: UInt64?
        /// Of a balloon's `guest-stats`; what the guest does not tell is missing, or no number of bytes.
        var stats: [String: UInt64] = [:]

        /// Of a property that is a number.
        var number: UInt64?
        /// Of `query-hotpluggable-cpus`, in QEMU's order.
        var processors: [Processor] = []

        /// A vCPU that is there or can be plugged (QEMU qapi/machine.json, HotpluggableCPU).
        struct Processor: Decodable, Sendable {
            var type: String
            /// Where it is in the machine's topology.
            var props: [String: Int]
            /// Where QEMU's object model has it; nil: it is not there.
            var path: String?

            private enum CodingKeys: String, CodingKey {
                case type, props
                case path = "qom-path"
            }
        }

        private enum CodingKeys: String, CodingKey { case actual, stats }

        init() {}

        init(from decoder: any Decoder) throws {
            guard let fields = try? decoder.container(keyedBy: CodingKeys.self) else {
                let value = try decoder.singleValueContainer()
                number = try? value.decode(UInt64.self)
                processors = (try? value.decode([Processor].self)) ?? []
                return
            }
            actual = try? fields.decode(UInt64.self, forKey: .actual)
            for (name, number) in (try? fields.decode([String: Number].self, forKey: .stats)) ?? [:] {
                if let value = number.value, value != .max { stats[name] = value }
            }
        }

        private struct Number: Decodable {
            var value: UInt64?
            init(from decoder: any Decoder) throws { value = try? decoder.singleValueContainer().decode(UInt64.self) }
        }
    }

    /// What QEMU says of an event or a failure, as much of it as is used.
    struct Details: Decodable {
        var reason: String?
        var device: String?
        var desc: String?
    }

    private struct Message: Decodable {
        var event: String?
        var id: UInt64?
        var data: Details?
        var error: Details?
        var `return`: Answer?
    }

    /// A line longer than this is not QMP.
    private static let maximumLine = 1 << 20

    /// - Parameter onEvent: called on a thread of its own, which also reads replies: it must not execute commands.
    init(
        socket: SharedDescriptor, log: @Sendable @escaping (String) -> Void,
        onEvent: @Sendable @escaping (QMPEvent) -> Void
    ) throws {
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
                        take(line, log, onEvent)
                        line.removeAll(keepingCapacity: true)
                    } else if line.count < QMP.maximumLine {
                        line.append(byte)
                    }
                }
            }
        }
        // Its reply is not waited for: QEMU has not begun to listen yet.
        let greeting = Array("{\"execute\":\"qmp_capabilities\"}\n".utf8)
        try check("qmp", "qmp_capabilities", send(socket.raw, greeting, greeting.count, Int32(MSG_NOSIGNAL)))
    }

    private func take(_ line: [UInt8], _ write: (String) -> Void, _ onEvent: (QMPEvent) -> Void) {
        func log(_ message: @autoclosure () -> String) {
            if logPace.withLock({ $0.admit() }) != nil { write(message()) }
        }
        guard let message = try? JSONDecoder().decode(Message.self, from: Data(line)) else {
            return log("qmp: not understood: \(printable(String(decoding: line, as: UTF8.self)))")
        }
        if let name = message.event {
            log("qmp: \(name) \(message.data?.reason ?? message.data?.device ?? "")")
            if let event = QMPEvent(name, message.data) { onEvent(event) }
        } else if let id = message.id {
            if let error = message.error { log("qmp: error: \(error.desc ?? "")") }
            commands.withLock { $0.waiting.removeValue(forKey: id) }?.settle(
                message.error.map { Reply.failed(printable($0.desc ?? "failed")) } ?? .done(message.return ?? Answer()))
        }
    }

    private struct Command: Encodable {
        var execute: String
        var arguments: [String: Argument]
        var id: UInt64
    }

    /// An argument of a command.
    enum Argument: Encodable, ExpressibleByStringLiteral, ExpressibleByBooleanLiteral, ExpressibleByStringInterpolation
    {
        case text(String)
        case flag(Bool)
        case number(Int)
        indirect case object([String: Argument])
        init(stringLiteral value: String) { self = .text(value) }
        init(booleanLiteral value: Bool) { self = .flag(value) }
        func encode(to encoder: any Encoder) throws {
            var container = encoder.singleValueContainer()
            switch self {
            case .text(let text): try container.encode(text)
            case .flag(let flag): try container.encode(flag)
            case .number(let number): try container.encode(number)
            case .object(let fields): try container.encode(fields)
            }
        }
    }

    func perform(
        _ command: String, _ arguments: [String: Argument], descriptor: Int32?, timeout: Duration
    ) throws -> Answer {
        let reply = try Promise<Reply>()
        let id = commands.withLock { commands in
            defer { commands.next += 1 }
            commands.waiting[commands.next] = reply
            return commands.next
        }
        defer { commands.withLock { _ = $0.waiting.removeValue(forKey: id) } }
        let bytes = Array(try JSONEncoder().encode(Command(execute: command, arguments: arguments, id: id))) + [10]
        let descriptors = descriptor.map { [$0] } ?? []
        let sent = martlet_send_descriptors(socket.raw, bytes, bytes.count, descriptors, Int32(descriptors.count), 0)
        try check("qmp", command, sent)
        switch reply.wait(timeout: timeout) {
        case nil: throw SystemError("qmp", command, errno: .timedOut)
        case .failed(let reason): throw HypervisorError("qemu: \(command): \(reason)")
        case .done(let answer): return answer
        }
    }
}
