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
        description.user = user.id
        let begin = monotonicNanoseconds()
        let machine = try await onThread("machine") { [description] in
            try KVMDriver(logger: logger).launch(description)
        }
        do {
            let client = try await AgentLink(machine: machine).agent(within: configuration.agent.startTimeout) {
                machine.state == .running
            }
            try await GuestAgent(client: client, timeout: configuration.agent.requestTimeout).prepare(plan)
            return ReadyMachine(
                machine: machine, startTime: monotonicNanoseconds() - begin, user: user)
        } catch {
            machine.kill(.ended("its agent did not answer"))
            let end = await machine.end()
            throw SandboxError.machineEnded(reason: "\(error); \(end)", console: machine.consoleTail)
        }
    }

    /// Ends the machine; returns when its processes are gone.
    public func end() async {
        machine.kill(.ended("it is no longer needed"))
        _ = await machine.end()
    }
}
