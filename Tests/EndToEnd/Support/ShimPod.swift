import Glibc
import LinuxSystem
import OCISpec
import TTRPC
internal import TaskAPI
import Testing

/// A pod whose engine is the test: it starts the shim as containerd does, and calls its Task service. For requests that the containerd of
/// this machine does not make.
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

    private let scene: Scene
    private let environment: [String]
    let id: String
    private let client: TaskServiceClient
    private static let timeout = Duration.seconds(60) * Lab.patience

    /// Starts the pod's server. Its first container is `id`.
    ///
    /// - Parameter bundle: of that container.
    init(_ scene: Scene, bundle: String, settings: String = "") throws {
        self.scene = scene
        id = scene.newID()
        let file = try scene.configuration(settings + "\npaths.root = \"\(scene.directory)/pods\"\n")[1]
        environment = Lab.environment + ["MARTLET_CONFIG=\(file)"]
        let path = try Self.address(id, bundle, environment)
        client = try wait { TaskServiceClient(try await TTRPCClient(unixPath: path)) }
    }

    /// What the shim answers to `start`.
    private static func address(_ id: String, _ bundle: String, _ environment: [String]) throws -> String {
        let shim = "\(Lab.binaries)/containerd-shim-martlet-v2"
        let outcome = try Command(
            "/bin/sh", ["-c", "cd '\(bundle)' && exec \(shim) -namespace test -id \(id) -address none start"],
            environment: environment
        ).finish(within: .seconds(60))
        let text = outcome.text
        guard text.hasPrefix("unix://") else { throw LabError("the shim answers \(text) \(outcome.errorText)") }
        return String(text.dropFirst("unix://".count))
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

    /// Creates a container.
    func create(_ container: String, bundle: String, _ rootfs: [RootMount]) throws {
        if container != id {
            // A pod's other containers have their shim started too, which answers the pod's address.
            _ = try Self.address(container, bundle, environment)
        }
        let client = client
        let request = TaskCreateTaskRequest.with {
            ($0.id, $0.bundle) = (container, bundle)
            ($0.stdout, $0.stderr) = ("file://\(bundle)/out", "file://\(bundle)/err")
            $0.rootfs = rootfs.map { mount in
                .with { ($0.type, $0.source, $0.options) = (mount.type, mount.source, mount.options) }
            }
        }
        _ = try wait { try await client.create(request, timeout: Self.timeout) }
    }

    func start(_ container: String) throws {
        let client = client
        _ = try wait { try await client.start(.with { $0.id = container }, timeout: Self.timeout) }
    }

    /// Creates and starts a container.
    func run(_ container: String, bundle: String, _ rootfs: [RootMount]) throws {
        try create(container, bundle: bundle, rootfs)
        try start(container)
    }

    /// Waits for a container's end.
    ///
    /// - Returns: its exit code.
    func end(of container: String, within limit: Duration = .seconds(120)) throws -> UInt32 {
        let client = client
        return try wait {
            try await client.wait(.with { $0.id = container }, timeout: limit * Lab.patience).exitStatus
        }
    }

    func kill(_ container: String) throws {
        let client = client
        _ = try wait {
            try await client.kill(
                .with {
                    ($0.id, $0.signal) = (container, 9)
                }, timeout: Self.timeout)
        }
    }

    func delete(_ container: String) throws {
        let client = client
        _ = try wait { try await client.delete(.with { $0.id = container }, timeout: Self.timeout) }
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

    /// The pid of a process of the pod, by its name in the pod's state.
    func process(_ name: String) throws -> Int32 {
        try Leftovers.process(name, in: "\(scene.directory)/pods/containerd-test/\(id)/state.json")
    }

    /// Ends the pod's server.
    func shutdown() throws {
        let client = client
        let id = id
        // It may be gone before its answer is.
        _ = try? wait { try await client.shutdown(.with { $0.id = id }, timeout: Self.timeout) }
    }

    /// Plays a scene with a pod in it, whose first container has this bundle.
    static func play(
        script: String = "sleep 1000", settings: String = "",
        _ body: (ShimPod, Scene, _ bundle: String) throws -> Void
    ) throws {
        try Scene.play { scene in
            let bundle = try bundle(scene, script: script)
            let pod = try ShimPod(scene, bundle: bundle, settings: settings)
            defer { try? pod.shutdown() }
            try body(pod, scene, bundle)
        }
    }
}

/// Runs what suspends to its end.
private func wait<R: Sendable>(_ body: @Sendable @escaping () async throws -> R) throws -> R {
    let done = try Promise<Result<R, any Error>>()
    Task.detached {
        do { done.settle(.success(try await body())) } catch { done.settle(.failure(error)) }
    }
    guard let result = done.wait(timeout: .seconds(600)) else { throw LabError("no answer") }
    return try result.get()
}
