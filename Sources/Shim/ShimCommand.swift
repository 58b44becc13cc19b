import FoundationEssentials
import Glibc
import Hypervisor
import LinuxSystem
import Logging
import OCISpec
import PodService
import Sandbox
import SwiftProtobuf
import TTRPC
import TaskAPI

/// What containerd starts a shim for, and what it gives it each time (docs/shim: core/runtime/v2/README.md of containerd).
public struct ShimCommand: Sendable {
    public var namespace: String
    public var id: String
    /// The bundle; the working directory where it is empty.
    public var bundle: String
    /// containerd's gRPC socket.
    public var address: String
    public var debug: Bool

    public init(namespace: String, id: String, bundle: String, address: String, debug: Bool) {
        self.namespace = namespace
        self.id = id
        self.bundle = bundle
        self.address = address
        self.debug = debug
    }

    /// Annotations that name the pod of a container: containerd's CRI plugin, CRI-O, and containerd's own for any client.
    static let groupAnnotations = [
        "io.kubernetes.cri.sandbox-id", "io.kubernetes.cri-o.SandboxID", "io.containerd.runc.v2.group",
    ]

    /// In containerd's environment: a configuration file other than the standard one.
    static let configurationVariable = "MARTLET_CONFIG"
    /// What the environment may say to a shim.
    public static let variables = ["PATH", "MARTLET_GUEST", "TTRPC_ADDRESS", "MAX_SHIM_VERSION", configurationVariable]

    /// State of the pods of one of containerd's name spaces lies below this directory.
    func stateRoot(_ configuration: Configuration) -> String { "\(configuration.paths.root)/containerd-\(namespace)" }

    private struct Annotations: Decodable { var annotations: [String: String]? }

    /// The id of the pod that the container belongs to: its own, where nothing else is said.
    func group() throws -> String {
        // A sandbox without a container has no config.json; what else is wrong with one is told when the container is made.
        guard let text = try? readText("\(bundle.isEmpty ? "." : bundle)/config.json", limit: Bundle.maximumConfigSize),
            let annotations = try? JSONDecoder().decode(Annotations.self, from: Data(text.utf8)).annotations
        else { return id }
        for name in Self.groupAnnotations {
            if let group = annotations[name], !group.isEmpty { return try ContainerID(group).value }
        }
        return id
    }

    // MARK: start

    /// Starts the pod's server, or finds the one of the pod that the container joins; answers what containerd reads from
    /// standard output.
    ///
    /// - Parameter input: what containerd wrote to standard input.
    public func start(input: [UInt8], environment: [String: String]) async throws -> [UInt8] {
        let configuration = try Configuration.load(file: environment[Self.configurationVariable])
        let group = try group()
        let root = stateRoot(configuration)
        let answer = BootstrapAnswer(environment: environment, input: input, id: id, namespace: namespace)
        if group != id {
            let directory = StateDirectory(root: root, id: group)
            guard !directory.isAbandoned(), let socket = directory.read()?.socket else {
                throw SandboxError.notFound("the shim of pod \(group), which container \(id) belongs to,")
            }
            return try announce(socket, answer)
        }
        let directory = StateDirectory(root: root, id: id)
        let lock = try directory.create(root: root, id: id)
        do throws(any Error) {
            let socket = try Self.freshSocketPath(configuration.paths.root)
            let listener = try UnixAddress.listen(socket)
            do {
                // So that what a shim leaves that dies at once, or can't write, is known.
                try directory.announce(id: id, socket: socket)
                try launch(socket, listener: listener.raw, lock: lock, environment)
                return try announce(socket, answer)
            } catch {
                unlink(socket)
                throw error
            }
        } catch {
            directory.sweep()
            throw error
        }
    }

    /// Short, as a socket's path may have 107 bytes, and an id of containerd's alone 76.
    private static func freshSocketPath(_ root: String) throws -> String {
        try makeDirectories("\(root)/s", mode: 0o711)
        var number: UInt64 = 0
        try check("getentropy", "", withUnsafeMutableBytes(of: &number) { getentropy($0.baseAddress, $0.count) })
        return "\(root)/s/" + String(number, radix: 36)
    }

    private func launch(
        _ socket: String, listener: Int32, lock: SharedDescriptor, _ environment: [String: String]
    ) throws {
        let arguments =
            ["-namespace", namespace, "-id", id, "-address", address, "-socket", socket] + (debug ? ["-debug"] : [])
            + ["serve"]
        let kept = ["PATH", "MARTLET_GUEST", "TTRPC_ADDRESS", Self.configurationVariable]
        let log = Self.openLog()
        let output = log?.raw ?? -1
        _ = try ChildProcess(
            "shim",
            .init(
                executable: try Programs.own("containerd-shim-martlet-v2"), arguments: arguments,
                environment: kept.compactMap { name in environment[name].map { "\(name)=\($0)" } },
                descriptors: [-1, output, output, listener, -1, lock.raw], newSession: true))
    }

    /// containerd's fifo for the shim's log, in the bundle. For reading too: so that a containerd that is away breaks
    /// nothing; without waiting: so that nothing waits for it.
    private static func openLog() -> SharedDescriptor? {
        guard let log = try? OwnedDescriptor.open("log", O_RDWR | O_NONBLOCK) else { return nil }
        return SharedDescriptor(log)
    }

    /// Leaves the address where containerd 1 looks for it when it comes back, and answers it.
    private func announce(_ socket: String, _ answer: BootstrapAnswer) throws -> [UInt8] {
        let address = "unix://\(socket)"
        let file = try OwnedDescriptor.open("address", O_WRONLY | O_CREAT | O_TRUNC, mode: 0o600)
        try check("write", "address", address.withCString { write(file.raw, $0, strlen($0)) })
        return answer.bytes(address)
    }

    // MARK: serve

    /// Serves the pod until it ends; the descriptors are as `launch` leaves them.
    public func serve(socket: String, environment: [String: String]) async throws {
        let configuration = try Configuration.load(file: environment[Self.configurationVariable])
        var logger = try LogOutput(debug: debug).logger()
        logger[metadataKey: "pod"] = "\(id)"
        let publisher = EventPublisher(
            address: environment["TTRPC_ADDRESS"] ?? "", namespace: namespace, logger: logger)
        try await PodServer.runShim(
            id: id, namespace: namespace, directory: StateDirectory(root: stateRoot(configuration), id: id),
            socket: socket, configuration: configuration, configurationFile: environment[Self.configurationVariable],
            logger: logger, emit: { publisher.publish($0) })
        await publisher.finish(within: .seconds(2))
    }

    // MARK: delete

    /// Clears away what a dead shim left; answers a `DeleteResponse`.
    public func delete(environment: [String: String]) throws -> [UInt8] {
        let configuration = try Configuration.load(file: environment[Self.configurationVariable])
        let directory = StateDirectory(root: stateRoot(configuration), id: id)
        var pid: UInt32 = 0
        // A member's pod lives on: its server has dealt with the container itself.
        if directory.isAbandoned(within: .seconds(2)) {
            pid = UInt32(clamping: directory.read()?.processes.first?.pid ?? 0)
            directory.sweep()
        }
        let response = TaskDeleteResponse.with {
            $0.pid = pid
            $0.exitStatus = 137
            $0.exitedAt = timestamp(Int64(time(nil)) * 1_000_000_000)
        }
        return try response.serializedBytes()
    }
}

/// How a shim says where it listens, in the words of the containerd that asks.
struct BootstrapAnswer: Equatable {
    /// Whether it knows version 3 of the Task service.
    var isThird: Bool

    /// containerd 2.3 gives parameters on standard input; whoever else understands more than version 2 says so in the environment.
    init(environment: [String: String], input: [UInt8], id: String, namespace: String) {
        let parameters = try? BootstrapParams(serializedBytes: input)
        let isBootstrap = parameters?.instanceID == id && parameters?.namespace == namespace
        isThird = isBootstrap || environment["MAX_SHIM_VERSION"].flatMap { Int($0) } ?? 0 >= 3
    }

    /// Only the address means version 2, to all of them; CRI-O reads nothing else, whatever its environment says.
    func bytes(_ address: String) -> [UInt8] {
        isThird ? Array(#"{"version":3,"address":"\#(address)","protocol":"ttrpc"}"#.utf8) : Array(address.utf8)
    }
}
