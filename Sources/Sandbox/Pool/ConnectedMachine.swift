import AgentAPI
import Hypervisor
import LinuxSystem
import Logging
import Synchronization

/// A machine that no pod has yet, whose agent listens, and the connection to the agent.
package final class ConnectedMachine: Sendable {
    package let machine: any VirtualMachine
    let client: AgentServiceClient
    /// Its processes run as it.
    let user: PodUser
    /// What it was started as.
    let configuration: VMConfiguration
    private let isTaken = Mutex(false)

    /// The machine of the pool that this process has held ready for the pod that it now serves.
    @TaskLocal package static var assigned: ConnectedMachine?

    private init(
        _ machine: any VirtualMachine, _ client: AgentServiceClient, _ user: PodUser, _ configuration: VMConfiguration
    ) {
        (self.machine, self.client, self.user, self.configuration) = (machine, client, user, configuration)
    }

    /// Starts a machine of the built-in VMM.
    ///
    /// - Parameters:
    ///   - configuration: its template is what it starts from; nil: it boots.
    ///   - limit: from the start until the agent listens.
    /// - Throws: why it did not start. Its processes are ended then.
    static func start(
        _ configuration: VMConfiguration, user: PodUser, within limit: Duration, logger: Logger
    ) async throws -> ConnectedMachine {
        var configuration = configuration
        configuration.user = user.id
        let machine = try await onThread("machine") { [configuration] in
            try KVMDriver(logger: logger).launch(configuration)
        }
        do {
            let client = try await AgentLink(machine: machine).agent(within: limit) { machine.state == .running }
            return ConnectedMachine(machine, client, user, configuration)
        } catch {
            throw await failure(machine, error)
        }
    }

    /// Has the agent compare versions, reseed the kernel and set the clock for a pod: its first answer.
    ///
    /// - Throws: why it did not. The machine is ended then.
    func prepare(_ plan: SandboxPlan, timeout: Duration) async throws {
        do { try await GuestAgent(client: client, timeout: timeout).prepare(plan) } catch {
            throw await Self.failure(machine, error)
        }
    }

    private static func failure(_ machine: any VirtualMachine, _ error: any Error) async -> SandboxError {
        machine.kill(.ended("its agent did not answer"))
        let end = await machine.end()
        return .machineEnded(reason: "\(error); \(end)", console: machine.consoleTail)
    }

    /// Takes the machine; true once.
    func take() -> Bool {
        isTaken.withLock { isTaken in
            defer { isTaken = true }
            return !isTaken
        }
    }

    /// Whether a pod's machine would be the same, but for its name and its user, or this one can grow to it.
    func isLike(_ plan: SandboxPlan) -> Bool {
        var wanted = plan.machine
        (wanted.name, wanted.user) = (configuration.name, configuration.user)
        wanted.template = configuration.template
        (wanted.vcpus, wanted.memoryMiB) = (configuration.vcpus, configuration.memoryMiB)
        let room = configuration.memoryMiB + configuration.hotplugMiB
        return wanted == configuration && (configuration.vcpus...configuration.maximumVCPUs).contains(plan.sizing.vcpus)
            && (configuration.memoryMiB...room).contains(plan.sizing.memoryMiB)
    }

    /// Ends the machine; returns when its processes are gone.
    package func end() async {
        machine.kill(.ended("it is no longer needed"))
        _ = await machine.end()
    }
}
