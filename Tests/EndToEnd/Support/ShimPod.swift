import Glibc
import LinuxSystem
import OCISpec
internal import SwiftProtobuf
import TTRPC
internal import TaskAPI
import Testing

/// A pod whose engine is the test: it starts the shim as containerd does, calls its Task and Sandbox services, and takes its events. For
/// requests that the containerd of this machine does not make.
final class ShimPod: Sendable {
    /// A mount of a root file system, as a snapshotter describes it.
    struct RootMount {
        var type: String
        var source: String
        var options: [String] = []
    }

    static var obstacle: String? {
        let shim = "\(Lab.binaries)/containerd-shim-martlet-v2"
        return access(shim, X_OK) == 0 ? nil : "no \(shim) (make build)"
    }

    /// containerd's.
    static let namespace = "test"

    let scene: Scene
    let id: String
    let events: ShimEvents
    /// Of the socket of the pod's server.
    let path: String
    let tasks: TaskServiceClient
    let sandboxes: SandboxServiceClient
    private let environment: [String]
    private let bootstrap: ShimBootstrap
    static let timeout = Duration.seconds(60) * Lab.patience

    /// Starts the pod's server. Its first container, or the sandbox, is `id`.
    ///
    /// - Parameter bundle: of that.
    init(_ scene: Scene, bundle: String, settings: String = "", bootstrap: ShimBootstrap = .message) throws {
        self.scene = scene
        self.bootstrap = bootstrap
        id = scene.newID()
        let file = try scene.configuration(settings + "\npaths.root = \"\(scene.directory)/pods\"\n")[1]
        events = try ShimEvents(at: "\(scene.directory)/events-\(id)")
        environment = Lab.environment + ["MARTLET_CONFIG=\(file)", "TTRPC_ADDRESS=\(events.path)"]
        // containerd reads the log from a fifo there.
        try scene.write("\(bundle)/log", "")
        let path = try bootstrap.start(id, namespace: Self.namespace, bundle: bundle, environment: environment)
        self.path = path
        let client = try waited { try await TTRPCClient(unixPath: path) }
        (tasks, sandboxes) = (TaskServiceClient(client), SandboxServiceClient(client))
    }

    /// A bundle without a root file system, whose shell runs `script`.
    ///
    /// - Parameter joins: the pod that the container is in; nil: a new one.
    static func bundle(
        _ scene: Scene, script: String, joins pod: String? = nil, edit: (inout Spec) -> Void = { _ in }
    ) throws -> String {
        let bundle = try scene.bundle(rootfs: .directory("rootfs"), script: script) { spec in
            spec.annotations["io.kubernetes.cri.container-type"] = pod == nil ? nil : "container"
            spec.annotations["io.kubernetes.cri.sandbox-id"] = pod
            edit(&spec)
        }
        guard mkdir("\(bundle)/rootfs", 0o711) == 0 else { throw LabError("mkdir \(bundle)/rootfs: errno \(errno)") }
        return bundle
    }

    // MARK: Containers

    /// Has the pod's shim started for another container, as containerd does for each that names the pod: it answers the pod's address.
    func startShim(for container: String, bundle: String) throws {
        _ = try bootstrap.start(container, namespace: Self.namespace, bundle: bundle, environment: environment)
    }

    /// Runs the shim's `delete` for a container, as containerd does when it has given up its shim.
    func deleteShim(of container: String, bundle: String) throws -> TaskDeleteResponse {
        let outcome = try Command(
            "\(Lab.binaries)/containerd-shim-martlet-v2",
            ["-namespace", Self.namespace, "-id", container, "-bundle", bundle, "-address", "none", "delete"],
            environment: environment
        ).finish()
        guard outcome.code == 0 else { throw LabError("delete: \(outcome.end): \(outcome.errorText)") }
        return try TaskDeleteResponse(serializedBytes: outcome.output)
    }

    /// Creates a container.
    ///
    /// - Parameters:
    ///   - streams: nil: files `out` and `err` in the bundle.
    ///   - options: the type of an empty message of options; empty: none.
    /// - Returns: the pid that engines take for it.
    @discardableResult
    func create(
        _ container: String, bundle: String, _ rootfs: [RootMount], streams: ShimStreams? = nil, options: String = ""
    ) throws -> UInt32 {
        let streams = streams ?? .files(output: "\(bundle)/out", errors: "\(bundle)/err")
        let request = TaskCreateTaskRequest.with {
            ($0.id, $0.bundle) = (container, bundle)
            ($0.stdin, $0.stdout, $0.stderr) = streams.names
            $0.rootfs = rootfs.map { mount in
                .with { ($0.type, $0.source, $0.options) = (mount.type, mount.source, mount.options) }
            }
            if !options.isEmpty { $0.options = .with { $0.typeURL = options } }
        }
        return try ask { try await $0.create(request, timeout: Self.timeout).pid }
    }

    func start(_ container: String) throws {
        _ = try ask { try await $0.start(.with { $0.id = container }, timeout: Self.timeout) }
    }

    /// Creates and starts a container that names the pod.
    func run(_ container: String, bundle: String, _ rootfs: [RootMount]) throws {
        if container != id { try startShim(for: container, bundle: bundle) }
        try create(container, bundle: bundle, rootfs)
        try start(container)
    }

    /// Waits for a container's end.
    ///
    /// - Returns: its exit code.
    func end(of container: String, within limit: Duration = .seconds(120)) throws -> UInt32 {
        try ask { try await $0.wait(.with { $0.id = container }, timeout: limit * Lab.patience).exitStatus }
    }

    func kill(_ container: String) throws {
        _ = try ask { try await $0.kill(.with { ($0.id, $0.signal) = (container, 9) }, timeout: Self.timeout) }
    }

    /// - Returns: its exit code.
    @discardableResult
    func delete(_ container: String) throws -> UInt32 {
        try ask { try await $0.delete(.with { $0.id = container }, timeout: Self.timeout).exitStatus }
    }

    /// Kills a container, and deletes it.
    func remove(_ container: String) throws {
        try kill(container)
        _ = try end(of: container)
        try delete(container)
    }

    /// Runs a container to its end, and deletes it.
    ///
    /// - Returns: its exit code, and what it wrote.
    func outcome(
        _ container: String, bundle: String, _ rootfs: [RootMount]
    ) throws -> (code: UInt32, output: String, errors: String) {
        try run(container, bundle: bundle, rootfs)
        let code = try end(of: container)
        try delete(container)
        return (code, Leftovers.read("\(bundle)/out") ?? "", Leftovers.read("\(bundle)/err") ?? "")
    }

    /// Asks the Task service.
    @discardableResult
    func ask<R: Sendable>(_ body: @Sendable @escaping (TaskServiceClient) async throws -> R) throws -> R {
        let tasks = tasks
        return try waited { try await body(tasks) }
    }

    /// The code with which the Task service refuses; nil where it does not.
    func refusal<R: Sendable>(
        _ body: @Sendable @escaping (TaskServiceClient) async throws -> R
    ) throws -> TTRPCError? {
        do { try ask(body) } catch let error as TTRPCError { return error }
        return nil
    }

    /// The pid of a process of the pod, by its name in the pod's state.
    func process(_ name: String) throws -> Int32 {
        try Leftovers.process(name, in: "\(scene.directory)/pods/containerd-test/\(id)/state.json")
    }

    // MARK: The end

    /// Ends the pod's server, which has no container any more.
    func shutdown() throws {
        let id = id
        // It may be gone before its answer is.
        _ = try? ask { try await $0.shutdown(.with { $0.id = id }, timeout: Self.timeout) }
    }

    /// Ends the pod with all that is in it, if it is there still.
    func end() {
        let (id, sandboxes) = (id, sandboxes)
        try? shutdown()
        _ = try? waited {
            try await sandboxes.shutdownSandbox(.with { $0.sandboxID = id }, timeout: Self.timeout)
        }
        try? events.stop()
    }

    /// Plays a scene with a pod in it, whose first container has this bundle.
    static func play(
        script: String = "sleep 1000", settings: String = "",
        _ body: (ShimPod, Scene, _ bundle: String) throws -> Void
    ) throws {
        try Scene.play { scene in
            let bundle = try bundle(scene, script: script)
            let pod = try ShimPod(scene, bundle: bundle, settings: settings)
            defer { pod.end() }
            try body(pod, scene, bundle)
        }
    }
}
