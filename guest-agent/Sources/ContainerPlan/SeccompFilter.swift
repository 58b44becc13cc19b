import CSeccomp
import GuestSystem
import Seccomp

/// A system call filter as the kernel takes it. Made once for a container, loaded by each of its processes.
public struct SeccompFilter: Codable, Sendable, Equatable {
    /// Each is a `struct sock_filter`.
    public var instructions: [UInt64]
    /// SECCOMP_FILTER_FLAG_*.
    public var flags: UInt32

    /// Has libseccomp make it. System calls that libseccomp does not know are left out.
    public init(_ plan: SeccompPlan) throws(AgentFailure) {
        flags = plan.flags
        instructions = try GuestSystem.during(SeccompPlan.name) {
            let filter = try SeccompBuilder(defaultAction: plan.defaultAction)
            for name in plan.architectures where try !filter.add(architecture: name) {
                throw AgentFailure(.invalidArgument, "architectures: \(name) is unknown")
            }
            for rule in plan.rules where rule.action != plan.defaultAction {
                let conditions = rule.conditions.map {
                    martlet_seccomp_condition(
                        argument: $0.argument, operation: $0.operation, value: $0.value, second: $0.second)
                }
                try filter.add(rule.name, rule.action, conditions)
            }
            return try SeccompNewCalls.prefix(plan) + filter.instructions()
        }
    }

    /// Lets it decide over the calling thread's system calls from now on.
    public func load() throws(AgentFailure) {
        try GuestSystem.during("load the \(SeccompPlan.name) filter") {
            try loadSeccomp(instructions, flags: flags)
        }
    }
}
