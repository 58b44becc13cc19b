import FoundationEssentials
import Glibc
import LinuxSystem
import Logging
import OCISpec

/// The programs of the host that a bundle wants run at points of a container's life.
///
/// Source: runtime-spec config.md, "POSIX-platform Hooks"; runtime.md, "State", "Lifecycle".
struct HostHooks: Sendable {
    /// What a hook reads from its standard input.
    private struct State: Encodable {
        var ociVersion: String
        var id: String
        var status: String
        /// Lives in the pod's network namespace.
        var pid: UInt32
        var bundle: String
        var annotations: [String: String]
    }

    private let spec: Spec
    private let id: String
    private let bundle: String
    private let pid: UInt32
    private let logger: Logger

    /// Seconds that a hook may take which sets no time itself.
    private static let standardTimeout = 60

    init(_ container: SandboxPlan.Container, bundle: String, pid: UInt32, logger: Logger) {
        spec = container.spec
        id = container.id
        self.bundle = bundle
        self.pid = pid
        self.logger = logger
    }

    /// When the container's surroundings are there and before its program is: engines set up networks here. A hook that
    /// fails ends the creation.
    func beforeCreation() async throws {
        try await run("prestart", spec.hooks?.prestart ?? [], "creating")
        try await run("createRuntime", spec.hooks?.createRuntime ?? [], "creating")
    }

    func afterStart() async { await runAll("poststart", spec.hooks?.poststart ?? [], "running") }

    func afterRemoval() async { await runAll("poststop", spec.hooks?.poststop ?? [], "stopped") }

    /// What fails is only logged, as the specification has it.
    private func runAll(_ point: String, _ hooks: [Hook], _ status: String) async {
        for index in hooks.indices {
            do { try await run(point, hooks, index, status) } catch { logger.warning("container \(id): \(error)") }
        }
    }

    private func run(_ point: String, _ hooks: [Hook], _ status: String) async throws {
        for index in hooks.indices { try await run(point, hooks, index, status) }
    }

    private func run(_ point: String, _ hooks: [Hook], _ index: Int, _ status: String) async throws {
        let hook = hooks[index]
        let name = "hooks.\(point)[\(index)]: \(hook.path)"
        let state = State(
            ociVersion: spec.ociVersion, id: id, status: status, pid: pid, bundle: bundle,
            annotations: spec.annotations)
        let bytes = try Pod.json(state)
        try await onThread("hook") {
            let input = try OwnedDescriptor.memory("state", size: 0)
            let errors = try OwnedDescriptor.memory("errors", size: 0)
            try check("write", name, bytes.withUnsafeBytes { pwrite(input.raw, $0.baseAddress, $0.count, 0) })
            let child = try ChildProcess(
                "hook",
                .init(
                    executable: hook.path, arguments: Array(hook.args.dropFirst()), environment: hook.env,
                    descriptors: [input.raw, -1, errors.raw], newSession: true, diesWithParent: true))
            let limit = hook.timeout ?? Self.standardTimeout
            guard let end = child.waitForEnd(timeout: .seconds(limit)) else {
                child.signal(SIGKILL)
                throw SandboxError.failed("\(name): has not ended after \(limit) s")
            }
            if end == .exited(0) { return }
            lseek(errors.raw, 0, SEEK_SET)
            let words = ((try? readText(errors.raw, "errors", limit: 1024)) ?? "").split(separator: "\n")
            throw SandboxError.failed(
                "\(name): \(end)" + (words.isEmpty ? "" : ": " + words.joined(separator: "; ")))
        }
    }
}
