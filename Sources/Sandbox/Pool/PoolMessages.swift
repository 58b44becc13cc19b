import AgentContract
import Glibc
import LinuxSystem
import OCISpec

/// What a server of the pool says of itself to whoever connects, before anything else.
public struct PoolMember: Sendable, Codable, Equatable {
    /// Martlet's.
    public var version: String
    public var pid: Int32
    /// The name of the template that its machine was restored from.
    public var template: String
    /// Where that is.
    var templates: String
    public var vcpus: Int
    public var memoryMiB: Int
    /// The namespaces in which it finds files and users.
    var namespaces: [String]

    /// This process.
    init(_ machine: ConnectedMachine) {
        version = martletVersion
        pid = getpid()
        template = machine.configuration.template?.name ?? ""
        templates = String((machine.configuration.template?.directory ?? "").dropLast(template.utf8.count + 1))
        (vcpus, memoryMiB) = (machine.configuration.vcpus, machine.configuration.memoryMiB)
        namespaces = Self.ownNamespaces()
    }

    /// Whether it can do what a server that this process starts would.
    var isOfThisHost: Bool { version == martletVersion && namespaces == Self.ownNamespaces() }

    /// Those that a server has from whoever starts it.
    private static func ownNamespaces() -> [String] {
        ["mnt", "user", "pid", "net", "cgroup", "uts", "ipc"].map { symbolicLink("/proc/self/ns/\($0)") ?? "" }
    }
}

/// What a server of the pool is told to do: to become the program of a command, with the descriptors that come with the message.
struct PoolAssignment: Sendable, Codable {
    /// The name of one of Martlet's programs.
    var program: String
    var arguments: [String]
    /// `NAME=VALUE`.
    var environment: [String]
    var directory: String

    /// Most bytes of a message.
    static let limit = 64 << 10

    init(_ command: ChildProcess.Command) {
        program = String(command.executable.split(separator: "/").last ?? "")
        (arguments, environment) = (command.arguments, command.environment)
        directory = command.directory ?? symbolicLink("/proc/self/cwd") ?? "/"
    }
}

extension SharedDescriptor {
    /// Sends a value as one message.
    func send(_ value: some Encodable, descriptors: [Int32] = []) throws {
        try JSON.encode(value).withUnsafeBytes { try send($0, descriptors: descriptors) }
    }

    /// Receives a message that is such a value.
    ///
    /// - Returns: nil where the other side has closed the connection.
    func receive<Value: Decodable>(_: Value.Type) throws -> (value: Value, descriptors: [SharedDescriptor])? {
        var bytes = [UInt8](repeating: 0, count: PoolAssignment.limit)
        let (count, descriptors) = try bytes.withUnsafeMutableBytes { try receive(into: $0) }
        guard count > 0 else { return nil }
        return (try JSON.decode(Value.self, from: Array(bytes[..<count]), file: "pool"), descriptors)
    }
}
