import CLinux
import FoundationEssentials
import Glibc
import LinuxSystem
public import Logging

/// A server of the pool, from its start to the moment at which it becomes the server of a pod.
public struct PoolProcess: Sendable {
    /// The program that it becomes.
    public struct Program: Sendable {
        /// One of Martlet's.
        public let name: String
        public let arguments: [String]
        private let machine: ConnectedMachine

        fileprivate init(_ assignment: PoolAssignment, _ machine: ConnectedMachine) {
            (name, arguments, self.machine) = (assignment.program, assignment.arguments, machine)
        }

        /// Runs `body`, in which a pod finds the machine.
        public func run(_ body: () async throws -> Void) async throws {
            try await ConnectedMachine.$assigned.withValue(machine) { try await body() }
        }
    }

    /// The descriptors that the process starts with.
    enum Descriptor {
        /// A pipe: the process writes a line when its machine is ready.
        static let ready: Int32 = 3
        /// Those from here on up to this one are of /dev/null: they are the program's one day.
        static let last: Int32 = 6
        static let errors: Int32 = 2
    }

    /// Starts a machine, and waits until it is needed.
    ///
    /// - Returns: what the process is to become; nil: it is no longer needed, or its machine has ended.
    /// - Throws: why there is no machine.
    public static func run(_ fill: PoolFill, logger: Logger) async throws -> Program? {
        let machine = try await TemplateMaker(fill.configuration, logger: logger)
            .hold(vcpus: fill.vcpus, memoryMiB: fill.memoryMiB)
        let path = Pool(directory: fill.configuration.pool.directory).socket(ofProcess: getpid())
        do {
            let listener = SharedDescriptor(try UnixAddress.listen(path, type: SOCK_SEQPACKET))
            Task {
                _ = await machine.machine.end()
                // Nobody waits for it any more, or it is of a pod.
                shutdown(listener.raw, Int32(SHUT_RDWR))
            }
            try sayReady()
            let assignment = try await onThread("pool") { try Self.wait(listener, PoolMember(machine)) }
            unlink(path)
            guard let assignment else {
                await machine.end()
                return nil
            }
            return Program(assignment, machine)
        } catch {
            unlink(path)
            await machine.end()
            throw error
        }
    }

    /// Tells whoever has started this process, and lets go of what it has from there.
    private static func sayReady() throws {
        let line = PoolFill.readyLine
        try check("write", "pipe", write(Descriptor.ready, line, line.utf8.count))
        for descriptor in [Descriptor.ready, Descriptor.errors] {
            try check("dup2", "\(descriptor)", dup2(Descriptor.last, descriptor))
        }
    }

    /// Serves connections, one after the other, until one has an assignment.
    ///
    /// - Returns: nil: the process is to end.
    private static func wait(_ listener: SharedDescriptor, _ member: PoolMember) throws -> PoolAssignment? {
        var result: Result<PoolAssignment?, any Error> = .success(nil)
        acceptConnections(listener) { connection in
            // Whoever asks has one packet to send.
            setReceiveTimeout(connection.raw, .seconds(2))
            guard (try? connection.send(member)) != nil,
                case (let message, let descriptors)?? = try? connection.receive(Message.self)
            else { return }
            shutdown(listener.raw, Int32(SHUT_RDWR))
            result = Result {
                if let assignment = message.assignment { try become(assignment, descriptors) }
                return message.assignment
            }
            // Who has gone meanwhile has left a pod that nobody uses, which ends by itself.
            if case .success = result { try? connection.send(member) }
        }
        return try result.get()
    }

    /// An assignment, or an empty object.
    private struct Message: Decodable {
        let assignment: PoolAssignment?

        init(from decoder: any Decoder) throws { assignment = try? PoolAssignment(from: decoder) }
    }

    /// Makes this process what the program's would be at its start.
    private static func become(_ assignment: PoolAssignment, _ descriptors: [SharedDescriptor]) throws {
        for (number, descriptor) in descriptors.enumerated() where number <= Descriptor.last {
            try check("dup2", "\(number)", dup2(descriptor.raw, Int32(number)))
        }
        try check("chdir", assignment.directory, chdir(assignment.directory))
        clearenv()
        for entry in assignment.environment {
            let parts = entry.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            if parts.count == 2 { setenv(String(parts[0]), String(parts[1]), 1) }
        }
    }
}
