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

    /// After the container's namespaces exist and before its program is started: engines set up networks here. A hook
    /// that fails ends the creation.
    func beforeCreation() async throws {
        try await run("prestart", hooks.prestart, "creating")
        try await run("createRuntime", hooks.createRuntime, "creating")
    }

    /// A hook that fails ends the container.
    func afterStart() async throws { try await run("poststart", hooks.poststart, "running") }

    /// What fails is only logged, as the specification has it.
    func afterRemoval() async {
        for index in hooks.poststop.indices {
            do { try await run("poststop", hooks.poststop, index, "stopped") } catch {
                logger.warning("container \(state.id): \(error)")
            }
        }
    }

    private func run(_ point: String, _ hooks: [Hook], _ status: String) async throws {
        for index in hooks.indices { try await run(point, hooks, index, status) }
    }

    private func run(_ point: String, _ hooks: [Hook], _ index: Int, _ status: String) async throws {
        let hook = hooks[index]
        let name = hook.failure(at: point, index)
        var state = state
        state.status = status
        let bytes = Data(try JSON.encode(state))
        let bundle = state.bundle
        try await onThread("hook") { try Self.execute(hook, name: name, state: bytes, bundle: bundle) }
    }

    /// Runs a hook to its end. The working directory is the bundle, as with runc.
    ///
    /// - Parameters:
    ///   - name: for messages.
    ///   - state: what the hook reads from its standard input.
    ///   - bundle: absolute path.
    /// - Throws: `SandboxError.failed` with what the hook wrote to standard error, when it fails or takes too long.
    static func execute(_ hook: Hook, name: String, state: Data, bundle: String) throws {
        let input = try OwnedDescriptor.memory("state", size: 0)
        let errors = try OwnedDescriptor.memory("errors", size: 0)
        try writeAll(Array(state), to: input.raw, name)
        let child: ChildProcess
        do throws(SystemError) {
            // The specification gives args "the same semantics as IEEE Std 1003.1-2008 execv's argv": programs such as
            // dockerd's network hook choose by the first entry what they do.
            child = try ChildProcess(
                "hook",
                .init(
                    executable: hook.path, argv0: hook.args.first, arguments: Array(hook.args.dropFirst()),
                    environment: hook.env, descriptors: [input.raw, -1, errors.raw], directory: bundle,
                    newSession: true, diesWithParent: true))
        } catch { throw SandboxError.failed("\(name): \(error)") }
        let limit = hook.timeout ?? standardTimeout
        guard let end = child.waitForEnd(timeout: .seconds(limit)) else {
            child.signalGroup(SIGKILL)
            throw SandboxError.failed("\(name): has not ended after \(limit) s")
        }
        if end == .exited(0) { return }
        lseek(errors.raw, 0, SEEK_SET)
        let lines = ((try? readText(errors.raw, "errors", limit: 1024)) ?? "").split(separator: "\n")
        throw SandboxError.failed("\(name): \(end)" + (lines.isEmpty ? "" : ": " + lines.joined(separator: "; ")))
    }
}
