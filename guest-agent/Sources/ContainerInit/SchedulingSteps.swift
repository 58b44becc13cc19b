import CAgent
import ContainerPlan
import GuestSystem
import LinuxSystem

/// Gives the calling process its scheduling, while it has the privileges for that.
struct SchedulingSteps {
    let plan: ProcessPlan

    func apply() throws(AgentFailure) {
        if let attributes = plan.scheduling.attributes {
            try during("process.scheduler") {
                try check(
                    "sched_setattr", "policy \(attributes.policy)",
                    martlet_agent_set_scheduler(
                        attributes.policy, attributes.flags, attributes.nice, attributes.priority, attributes.runtime,
                        attributes.deadline, attributes.period))
            }
        }
        if let priority = plan.scheduling.ioPriority {
            try during("process.ioPriority") {
                try check("ioprio_set", "\(priority)", martlet_agent_set_io_priority(priority))
            }
        }
        if let personality = plan.personality {
            try during("linux.personality") {
                try check("personality", "\(personality)", martlet_agent_set_personality(personality))
            }
        }
    }

    /// Binds the process to processors; does nothing when there are none.
    static func bind(to processors: [Int], _ field: String) throws(AgentFailure) {
        guard let last = processors.last else { return }
        var mask = [UInt64](repeating: 0, count: last / 64 + 1)
        for number in processors { mask[number / 64] |= 1 << UInt64(number % 64) }
        try during("process.execCPUAffinity.\(field)") {
            try check("sched_setaffinity", "\(processors)", martlet_agent_set_affinity(mask, UInt32(mask.count)))
        }
    }
}
