import FoundationEssentials
import Glibc
import LinuxSystem
import Logging
import OCISpec

/// The programs of the host that a bundle wants run at points of a container's life.
///
/// Source: runtime-spec config.md, "POSIX-platform Hooks"; runtime.md, "State", "Lifecycle".
struct HostHooks: Sendable {
    private let hooks: Hooks
    /// But for the status.
    private let state: HookState
    private let logger: Logger

    /// Seconds that a hook may take which sets no time itself.
    private static let standardTimeout = 60

    init(_ container: SandboxPlan.Container, bundle: String, pid: UInt32, logger: Logger) {
        hooks = container.spec.hooks ?? Hooks()
        var state = HookState(container.spec, id: container.id, bundle: bundle)
        state.pid = Int32(bitPattern: pid)
        self.state = state
        self.logger = logger
    }

    /// When the container's surroundings are there and before its program is: engines set up networks here. A hook that
    /// fails ends the creation.
    func beforeCreation() async throws {
        try await run("prestart", hooks.prestart, "creating")
        try await run("createRuntime", hooks.createRuntime, "creating")
    }

    func afterStart() async { await runAll("poststart", hooks.poststart, "running") }

    func afterRemoval() async { await runAll("poststop", hooks.poststop, "stopped") }

    /// What fails is only logged, as the specification has it.
    private func runAll(_ point: String, _ hooks: [Hook], _ status: String) async {
        for index in hooks.indices {
            do { try await run(point, hooks, index, status) } catch {
                logger.warning("container \(state.id): \(error)")
            }
        }
    }

    private func run(_ point: String, _ hooks: [Hook], _ status: String) async throws {
        for index in hooks.indices { try await run(point, hooks, index, status) }
    }

    private func run(_ point: String, _ hooks: [Hook], _ index: Int, _ status: String) async throws {
        let hook = hooks[index]
        let name = "hooks.\(point)[\(index)]: \(hook.path)"
        var state = state
        state.status = status
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
