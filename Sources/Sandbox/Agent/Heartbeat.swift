import AgentAPI
import Hypervisor
import TTRPC

/// Notices an agent that has stopped answering.
///
/// Time is counted in ticks of this process, not by the clock: when the whole host stalls, so do the ticks, and nobody
/// is blamed.
enum Heartbeat {
    /// Watches the agent from now on, and ends the machine when the agent does not answer any more.
    static func start(
        _ agent: AgentServiceClient, _ limits: Configuration.Agent, _ machine: any VirtualMachine
    ) -> Task<Void, Never> {
        Task {
            do {
                try await watch(agent, interval: limits.heartbeatInterval, limit: limits.heartbeatTimeout)
                machine.kill(.ended("the agent stopped answering for \(limits.heartbeatTimeout)"))
            } catch {
                // The connection is lost: the machine has ended or is about to, which its driver reports. A machine that
                // lives on without its agent is of no use.
                try? await Task.sleep(for: .seconds(1))
                if !Task.isCancelled { machine.kill(.ended("the connection to the agent was lost: \(error)")) }
            }
        }
    }

    /// Returns when a call to the agent stays unanswered for `limit`, or throws when the connection is lost or the task
    /// is cancelled.
    static func watch(_ agent: AgentServiceClient, interval: Duration, limit: Duration) async throws {
        while true {
            let answered = try await withThrowingTaskGroup(of: Bool.self) { group in
                group.addTask {
                    _ = try await agent.guestDetails(.init(), timeout: TTRPCClient.noTimeout)
                    return true
                }
                group.addTask {
                    var waited = Duration.zero
                    while waited < limit {
                        try await Task.sleep(for: interval)
                        waited += interval
                    }
                    return false
                }
                defer { group.cancelAll() }
                return try await group.next() ?? false
            }
            if !answered { return }
            try await Task.sleep(for: interval)
        }
    }
}
