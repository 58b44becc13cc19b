public import Hypervisor
import LinuxSystem
import Logging

/// A machine without containers whose agent has answered.
public struct ReadyMachine: Sendable {
    public let machine: any VirtualMachine
    /// Nanoseconds from the start of its processes until the agent's first answer: to `CreateSandbox`, entropy and the clock.
    public let startTime: UInt64
    /// Its processes run as it.
    private let user: PodUser

    /// Starts a machine of the built-in VMM as `plan` says.
    ///
    /// - Parameters:
    ///   - template: what it starts from; nil: it boots.
    ///   - user: of its processes.
    /// - Throws: why it did not start. Its processes are ended then.
    static func start(
        _ plan: SandboxPlan, from template: MachineTemplate?, user: PodUser, _ configuration: Configuration,
        logger: Logger
    ) async throws -> ReadyMachine {
        var description = plan.machine
        description.template = template
        let begin = monotonicNanoseconds()
        let connected = try await ConnectedMachine.start(
            description, user: user, within: configuration.agent.startTimeout, logger: logger)
        try await connected.prepare(plan, timeout: configuration.agent.requestTimeout)
        return ReadyMachine(
            machine: connected.machine, startTime: monotonicNanoseconds() - begin, user: user)
    }

    /// Takes a machine that is held ready, as a pod does.
    static func take(
        _ held: ConnectedMachine, _ plan: SandboxPlan, _ configuration: Configuration
    ) async throws -> ReadyMachine {
        let begin = monotonicNanoseconds()
        try await onThread("machine") { try held.machine.resume() }
        try await held.prepare(plan, timeout: configuration.agent.requestTimeout)
        return ReadyMachine(
            machine: held.machine, startTime: monotonicNanoseconds() - begin, user: held.user)
    }

    /// Ends the machine; returns when its processes are gone.
    public func end() async {
        machine.kill(.ended("it is no longer needed"))
        _ = await machine.end()
    }
}
