import Glibc
import LinuxSystem
import OCISpec
import TTRPC
internal import TaskAPI
import Testing

/// The pod as a client of containerd's Sandbox service has it.
extension ShimPod {
    /// Asks the Sandbox service.
    @discardableResult
    func askSandbox<R: Sendable>(
        _ body: @Sendable @escaping (SandboxServiceClient) async throws -> R
    ) throws -> R {
        let sandboxes = sandboxes
        return try waited { try await body(sandboxes) }
    }

    /// The code with which the Sandbox service refuses; nil where it does not.
    func sandboxRefusal<R: Sendable>(
        _ body: @Sendable @escaping (SandboxServiceClient) async throws -> R
    ) throws -> TTRPCError.Code? {
        do { try askSandbox(body) } catch let error as TTRPCError { return error.code }
        return nil
    }

    /// Makes the sandbox.
    ///
    /// - Parameter network: the path of a network namespace; empty: one of its own, with nothing in it.
    func createSandbox(_ sandbox: String? = nil, network: String = "") throws {
        let request = SandboxAPICreateSandboxRequest.with {
            ($0.sandboxID, $0.bundlePath, $0.netnsPath) = (sandbox ?? id, scene.directory, network)
        }
        try askSandbox { try await $0.createSandbox(request, timeout: Self.timeout) }
    }

    /// - Returns: the pod's pid.
    @discardableResult
    func startSandbox() throws -> UInt32 {
        let id = id
        return try askSandbox { try await $0.startSandbox(.with { $0.sandboxID = id }, timeout: Self.timeout).pid }
    }

    func stopSandbox() throws {
        let id = id
        try askSandbox { try await $0.stopSandbox(.with { $0.sandboxID = id }, timeout: Self.timeout) }
    }

    var sandboxStatus: SandboxAPISandboxStatusResponse {
        get throws {
            let id = id
            return try askSandbox { try await $0.sandboxStatus(.with { $0.sandboxID = id }, timeout: Self.timeout) }
        }
    }

    /// A bundle of a container of the sandbox: no annotation names that, its client sends the container to the sandbox's shim.
    ///
    /// - Parameters:
    ///   - joins: the kinds of namespaces that it has in common with the pod.
    ///   - pid: the pod's process, whose namespaces these are.
    func member(
        script: String, joins kinds: [Linux.Namespace.Kind] = [], of pid: UInt32 = 0,
        edit: (inout Spec) -> Void = { _ in }
    ) throws -> String {
        try Self.bundle(scene, script: script) { spec in
            for index in spec.linux?.namespaces.indices ?? 0..<0 {
                guard let namespace = spec.linux?.namespaces[index], let kind = namespace.kind, kinds.contains(kind)
                else { continue }
                spec.linux?.namespaces[index].path = "/proc/\(pid)/ns/\(kind.rawValue)"
            }
            edit(&spec)
        }
    }

    /// Creates and starts a container of the sandbox.
    func runMember(_ bundle: String, _ rootfs: [RootMount], hasInput: Bool = false) throws -> ShimProcess {
        let process = try createProcess(scene.newID(), bundle: bundle, rootfs, hasInput: hasInput)
        try process.start()
        return process
    }

    /// Plays a scene with a sandbox that has started.
    ///
    /// - Parameter network: makes the path of its network namespace; nil: it has one of its own.
    static func playSandbox(
        settings: String = "", network: (Scene) throws -> String = { _ in "" },
        _ body: (ShimPod, Scene, _ pid: UInt32) throws -> Void
    ) throws {
        try Scene.play { scene in
            // What a client may write for the sandbox itself: no process, no root.
            let bundle = try scene.makeDirectory("sandbox")
            try scene.write("sandbox/config.json", #"{"ociVersion":"1.0.2","annotations":{"some":"value"}}"#)
            let pod = try ShimPod(scene, bundle: bundle, settings: settings)
            defer { pod.end() }
            try pod.createSandbox(network: try network(scene))
            try body(pod, scene, try pod.startSandbox())
        }
    }
}
