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

    /// In containerd's environment: a configuration file other than the standard one.
    static let configurationVariable = "MARTLET_CONFIG"
    /// What the environment may say to a shim.
    public static let variables = ["PATH", "MARTLET_GUEST", "TTRPC_ADDRESS", "MAX_SHIM_VERSION", configurationVariable]

    /// The state directory of a pod of the namespace.
    private func directory(_ pod: String, _ configuration: Configuration) -> StateDirectory {
        StateDirectory(
            root: StateDirectory.root(ofNamespace: namespace, below: configuration.paths.root), id: pod)
    }

    /// What the bundle says of the container's pod.
    private func membership(_ configuration: Configuration) throws -> PodMembership {
        try PodMembership(id: id, namespace: namespace, bundle: bundle, root: configuration.paths.root)
    }

    // MARK: start

    /// Starts the pod's server, or finds the one of the pod that the container joins.
    ///
    /// - Parameter input: what containerd wrote to standard input.
    /// - Returns: what containerd reads from standard output.
    public func start(input: [UInt8], environment: [String: String]) async throws -> [UInt8] {
        let configuration = try Configuration.load(file: environment[Self.configurationVariable])
        let parameters = BootstrapParams(input: input, id: id, namespace: namespace)
        let answer = BootstrapAnswer(environment: environment, parameters: parameters)
        let socket: String
        switch try await membership(configuration).claim() {
        case .joined(_, _, let found):
            socket = found
            try leaveAddress(socket)
        case .new(let pod, let directory, let lock, let listeners):
            socket = listeners.socket
            do {
                try leaveAddress(socket)
                let debug = debug || parameters?.wantsDebug == true
                try launch(pod: pod, lock: lock, listeners, environment, configuration, debug: debug)
            } catch {
                directory.sweep()
                throw error
            }
        }
        return try answer.bytes("unix://\(socket)")
    }

    /// Starts the server of a new pod.
    private func launch(
        pod: String, lock: SharedDescriptor, _ listeners: StateDirectory.Listeners,
        _ environment: [String: String], _ configuration: Configuration, debug: Bool
    ) throws {
        let arguments =
            ["-namespace", namespace, "-id", pod, "-address", address, "-socket", listeners.socket]
            + (debug ? ["-debug"] : []) + ["serve"]
        let kept = ["PATH", "MARTLET_GUEST", "TTRPC_ADDRESS", Self.configurationVariable]
        let log = Self.openLog()
        let output = log?.raw ?? -1
        let command = ChildProcess.Command(
            executable: try Programs.own("containerd-shim-martlet-v2"), arguments: arguments,
            environment: kept.compactMap { name in environment[name].map { "\(name)=\($0)" } },
            descriptors: [
                -1, output, output, listeners.services.raw, -1, lock.raw, listeners.processes.raw,
            ], newSession: true)
        let configurationFile = environment[Self.configurationVariable]
        let pooled = Pool.take(command, configuration, configurationFile: configurationFile) {
            try? Bundle(directory: bundle.isEmpty ? "." : bundle).spec
        }
        if pooled == nil { _ = try ChildProcess("shim", command) }
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

    /// Removes what a dead shim left, or the container from a shim that lives and that containerd has given up: it deletes the
    /// bundle, and would never ask for the container again.
    ///
    /// - Returns: a `DeleteResponse`.
    public func delete(environment: [String: String]) async throws -> [UInt8] {
        let configuration = try Configuration.load(file: environment[Self.configurationVariable])
        let directory = abandonedPod(configuration)
        var response = TaskDeleteResponse.with {
            $0.exitStatus = 137
            $0.exitedAt = timestamp(Int64(time(nil)) * 1_000_000_000)
        }
        if let answer = await leave(directory) {
            response = answer
        } else if directory.isAbandoned(within: .seconds(2)) {
            response.pid = UInt32(clamping: directory.read()?.processes.first?.pid ?? 0)
            directory.sweep()
        }
        return try response.serializedBytes()
    }

    /// How long a shim that lives may take for a request: containerd ends this command after five seconds.
    private static let limit = Duration.seconds(2)

    /// Kills the container in a pod whose server lives, and deletes it. The server ends with the pod's last container.
    ///
    /// - Returns: nil where no server answers, or has no such container: it has dealt with it itself.
    private func leave(_ directory: StateDirectory) async -> TaskDeleteResponse? {
        guard let socket = directory.read()?.socket, !socket.isEmpty else { return nil }
        let id = id
        do {
            let tasks = TaskServiceClient(try await TTRPCClient(unixPath: socket, timeout: Self.limit))
            _ = try await tasks.state(.with { $0.id = id }, timeout: Self.limit)
            // One that has ended, or is being created, is not killed.
            let kill = TaskKillRequest.with { ($0.id, $0.signal, $0.all) = (id, UInt32(SIGKILL), true) }
            _ = try? await tasks.kill(kill, timeout: Self.limit)
            _ = try? await tasks.wait(.with { $0.id = id }, timeout: Self.limit)
            let answer = try await tasks.delete(.with { $0.id = id }, timeout: Self.limit)
            _ = try? await tasks.shutdown(.with { $0.id = id }, timeout: Self.limit)
            return answer
        } catch { return nil }
    }

    /// The pod of a container whose shim is gone. The bundle has the address at which that listened: what made the container a
    /// member of its pod may be gone too.
    private func abandonedPod(_ configuration: Configuration) -> StateDirectory {
        let address = try? readText("\(bundle.isEmpty ? "." : bundle)/address")
        let pods = PodList.all(root: configuration.paths.root)
        if let pod = pods.first(where: { !$0.socket.isEmpty && "unix://\($0.socket)" == address }) {
            return StateDirectory(path: pod.directory)
        }
        return directory((try? membership(configuration).named?.id) ?? id, configuration)
    }
}
