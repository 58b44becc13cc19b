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

/// What containerd starts a shim for, and what it gives it each time (core/runtime/v2/README.md of containerd).
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

    /// Annotations that name the pod of a container, which exists: containerd's CRI plugin, and CRI-O.
    static let sandboxAnnotations = ["io.kubernetes.cri.sandbox-id", "io.kubernetes.cri-o.SandboxID"]
    /// The annotation by which any client of containerd puts containers into one pod; the first of them makes it.
    static let groupAnnotation = "io.containerd.runc.v2.group"

    /// In containerd's environment: a configuration file other than the standard one.
    static let configurationVariable = "MARTLET_CONFIG"
    /// What the environment may say to a shim.
    public static let variables = ["PATH", "MARTLET_GUEST", "TTRPC_ADDRESS", "MAX_SHIM_VERSION", configurationVariable]

    /// The state directory of a pod of the namespace.
    private func directory(_ pod: String, _ configuration: Configuration) -> StateDirectory {
        StateDirectory(
            root: StateDirectory.root(ofNamespace: namespace, below: configuration.paths.root), id: pod)
    }

    private struct Annotations: Decodable { var annotations: [String: String]? }

    /// The pod that a container belongs to.
    struct Group: Equatable {
        var id: String
        /// Whether the container makes the pod where there is none.
        var canBeMade: Bool
    }

    /// The pod that the container belongs to: its own, where nothing else is said.
    func group() throws -> Group {
        let own = Group(id: id, canBeMade: true)
        // A sandbox without a container has no config.json; one that is bad is refused when the container is made.
        guard let text = try? readText("\(bundle.isEmpty ? "." : bundle)/config.json", limit: Bundle.maximumConfigSize),
            let annotations = try? JSONDecoder().decode(Annotations.self, from: Data(text.utf8)).annotations
        else { return own }
        for name in Self.sandboxAnnotations + [Self.groupAnnotation] {
            guard let group = annotations[name], !group.isEmpty, group != id else { continue }
            return Group(id: try ContainerID(group).value, canBeMade: name == Self.groupAnnotation)
        }
        return own
    }

    // MARK: start

    /// How often a pod is looked for that another shim is making at this moment, with 20 ms between.
    private static let attempts = 250

    /// Starts the pod's server, or finds the one of the pod that the container joins.
    ///
    /// - Parameter input: what containerd wrote to standard input.
    /// - Returns: what containerd reads from standard output.
    public func start(input: [UInt8], environment: [String: String]) async throws -> [UInt8] {
        let configuration = try Configuration.load(file: environment[Self.configurationVariable])
        let group = try group()
        let parameters = BootstrapParams(input: input, id: id, namespace: namespace)
        let answer = BootstrapAnswer(environment: environment, parameters: parameters)
        let directory = directory(group.id, configuration)
        for _ in 0..<Self.attempts {
            if group.id != id, !directory.isAbandoned(), let socket = directory.read()?.socket {
                try leaveAddress(socket)
                return try answer.bytes("unix://\(socket)")
            }
            guard group.canBeMade else { break }
            do {
                let debug = debug || parameters?.wantsDebug == true
                let socket = try launch(pod: group.id, directory, configuration, environment, debug: debug)
                return try answer.bytes("unix://\(socket)")
            } catch SandboxError.alreadyExists where group.id != id {
                // The group's first container is making it at this moment.
                try await Task.sleep(for: .milliseconds(20))
            }
        }
        throw SandboxError.notFound("the shim of pod \(group.id), which container \(id) belongs to,")
    }

    /// Starts the server of a new pod.
    ///
    /// - Returns: the socket at which it listens.
    private func launch(
        pod: String, _ directory: StateDirectory, _ configuration: Configuration, _ environment: [String: String],
        debug: Bool
    ) throws -> String {
        let lock = try directory.create()
        do {
            // Written down first: so what a shim leaves is known that dies at once, or can't write.
            let listeners = try directory.listen(below: configuration.paths.root)
            let socket = listeners.socket
            try leaveAddress(socket)
            let arguments =
                ["-namespace", namespace, "-id", pod, "-address", address, "-socket", socket]
                + (debug ? ["-debug"] : []) + ["serve"]
            let kept = ["PATH", "MARTLET_GUEST", "TTRPC_ADDRESS", Self.configurationVariable]
            let log = Self.openLog()
            let output = log?.raw ?? -1
            _ = try ChildProcess(
                "shim",
                .init(
                    executable: try Programs.own("containerd-shim-martlet-v2"), arguments: arguments,
                    environment: kept.compactMap { name in environment[name].map { "\(name)=\($0)" } },
                    descriptors: [
                        -1, output, output, listeners.services.raw, -1, lock.raw, listeners.processes.raw,
                    ], newSession: true))
            return socket
        } catch {
            directory.sweep()
            throw error
        }
    }

    /// containerd's fifo for the shim's log, in the bundle. For reading too: so that a containerd that is away breaks
    /// nothing; without waiting: so that nothing waits for it.
    private static func openLog() -> SharedDescriptor? {
        guard let log = try? OwnedDescriptor.open("log", O_RDWR | O_NONBLOCK) else { return nil }
        return SharedDescriptor(log)
    }

    /// Leaves the address in the bundle, where containerd 1 looks for it when it comes back.
    private func leaveAddress(_ socket: String) throws {
        let file = try OwnedDescriptor.open("address", O_WRONLY | O_CREAT | O_TRUNC, mode: 0o600)
        try check("write", "address", "unix://\(socket)".withCString { write(file.raw, $0, strlen($0)) })
    }

    // MARK: serve

    /// Serves the pod until it ends; the descriptors are as `launch` leaves them.
    public func serve(socket: String, environment: [String: String]) async throws {
        let configuration = try Configuration.load(file: environment[Self.configurationVariable])
        var logger = try LogOutput(debug: debug, level: .info).logger()
        logger[metadataKey: "pod"] = "\(id)"
        let log = LifeCycleLog(logger)
        let publisher = EventPublisher(
            address: environment["TTRPC_ADDRESS"] ?? "", namespace: namespace, logger: logger)
        try await PodServer.runShim(
            id: id, namespace: namespace, directory: directory(id, configuration), socket: socket,
            configuration: configuration, configurationFile: environment[Self.configurationVariable], logger: logger,
            emit: {
                log.note($0)
                publisher.publish($0)
            })
        await publisher.finish(within: .seconds(2))
    }

    // MARK: delete

    /// Removes what a dead shim left.
    ///
    /// - Returns: a `DeleteResponse`.
    public func delete(environment: [String: String]) throws -> [UInt8] {
        let configuration = try Configuration.load(file: environment[Self.configurationVariable])
        let directory = directory((try? group().id) ?? id, configuration)
        var pid: UInt32 = 0
        // A pod that lives on has dealt with its container itself.
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
