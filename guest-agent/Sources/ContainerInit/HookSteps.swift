import CLinux
import ContainerPlan
import Glibc
import GuestSystem
import LinuxSystem
import OCISpec

/// Runs hooks as children of the calling process, one after the other.
struct HookSteps {
    let plan: HookPlan

    func runCreateContainer() throws(AgentFailure) {
        try run("createContainer", plan.createContainer, status: "creating")
    }

    /// - Parameter environment: of the container's process, which hooks have that name none of their own, as with runc.
    func runStartContainer(environment: [String]) throws(AgentFailure) {
        var hooks = plan.startContainer
        for index in hooks.indices where hooks[index].env.isEmpty { hooks[index].env = environment }
        try run("startContainer", hooks, status: "created")
    }

    private func run(_ point: String, _ hooks: [Hook], status: String) throws(AgentFailure) {
        var state = plan.state
        state.status = status
        state.pid = getpid()
        for (index, hook) in hooks.enumerated() {
            try during(hook.failure(at: point, index)) { try run(hook, state) }
        }
    }

    private func run(_ hook: Hook, _ state: HookState) throws {
        let input = try OwnedDescriptor.memory("state", size: 0)
        let errorOutput = try OwnedDescriptor.memory("errors", size: 0)
        let bytes = try JSON.encode(state)
        try check("write", "the state", bytes.withUnsafeBytes { pwrite(input.raw, $0.baseAddress, $0.count, 0) })
        let (pid, process) = try start(hook, [input.raw, -1, errorOutput.raw])
        let limit = hook.timeout ?? HookPlan.standardTimeout
        var item = pollfd(fd: process.raw, events: Int16(POLLIN), revents: 0)
        let inTime = poll(&item, 1, Int32(clamping: min(limit, 1_000_000) * 1000)) > 0
        if !inTime { kill(pid, SIGKILL) }
        var status: Int32 = 0
        try retrying("wait for", hook.path) { waitpid(pid, &status, 0) }
        guard inTime else { throw AgentFailure(.deadlineExceeded, "has not ended after \(limit) s") }
        switch ExitStatus(waitStatus: status) {
        case .exited(0): return
        case .exited(let code): throw AgentFailure(.failedPrecondition, "exited with \(code)\(errors(errorOutput))")
        case .signalled(let signal):
            let name = String(cString: strsignal(Int32(signal))).lowercased()
            throw AgentFailure(.failedPrecondition, "ended by signal \(signal) (\(name))\(errors(errorOutput))")
        case nil: throw AgentFailure(.internal, "has not ended")
        }
    }

    /// The beginning of what it wrote to stderr.
    private func errors(_ file: borrowing OwnedDescriptor) -> String {
        lseek(file.raw, 0, SEEK_SET)
        let text = ((try? readText(file.raw, "errors", limit: 1024)) ?? "").split(separator: "\n").joined(
            separator: "; ")
        return text.isEmpty ? "" : ": \(text)"
    }

    /// - Returns: its pid and a pidfd.
    private func start(_ hook: Hook, _ descriptors: [Int32]) throws(SystemError) -> (pid_t, SharedDescriptor) {
        var pid: pid_t = -1
        var process: Int32 = -1
        var step: UnsafePointer<CChar>?
        let result = withCStrings(hook.args.isEmpty ? [hook.path] : hook.args) { arguments in
            withCStrings(hook.env) { environment in
                hook.path.withCString { path in
                    descriptors.withUnsafeBufferPointer { descriptors in
                        var options = martlet_spawn_options(
                            path: path, directory: nil, argv: arguments, envp: environment,
                            descriptors: descriptors.baseAddress, descriptor_count: Int32(descriptors.count),
                            new_session: 0, parent_death_signal: SIGKILL, new_pid_namespace: 0)
                        return martlet_spawn(&options, &pid, &process, &step)
                    }
                }
            }
        }
        if result != 0 {
            throw SystemError(step.map { String(cString: $0) } ?? "spawn", errno: .init(rawValue: result))
        }
        return (pid, SharedDescriptor(OwnedDescriptor(owning: process)))
    }
}
