import GuestSystem
public import OCISpec

/// How the kernel is to share processors and disks with a process, as numbers it takes.
public struct SchedulingPlan: Codable, Sendable, Equatable {
    /// sched_setattr(2), `struct sched_attr`.
    public struct Attributes: Codable, Sendable, Equatable {
        public var policy: UInt32
        public var flags: UInt64
        public var nice: Int32
        public var priority: UInt32
        /// Nanoseconds, as the next two.
        public var runtime: UInt64
        public var deadline: UInt64
        public var period: UInt64
    }

    /// nil: inherited.
    public var attributes: Attributes?
    /// ioprio_set(2), class and level in one; nil: inherited.
    public var ioPriority: Int32?
    /// Processors that a further process is bound to until it is in the container, and from then on; empty: any.
    public var initialProcessors: [Int] = []
    public var finalProcessors: [Int] = []

    /// Throws when a name or a list can't be read; names the field.
    public init(_ process: Process) throws(AgentFailure) {
        if let scheduler = process.scheduler { attributes = try Self.attributes(scheduler) }
        if let io = process.ioPriority {
            guard let number = Self.ioClasses.firstIndex(of: io.class) else {
                throw AgentFailure(
                    .invalidArgument, "process.ioPriority.class: \"\(io.class)\" is none of \(Self.ioClasses)")
            }
            guard (0...7).contains(io.priority) else {
                throw AgentFailure(
                    .invalidArgument, "process.ioPriority.priority: \(io.priority) is not between 0 and 7")
            }
            // linux/ioprio.h: the classes count from 1, in the bits from 13 on.
            ioPriority = Int32(number + 1) << 13 | Int32(io.priority)
        }
        if let affinity = process.execCPUAffinity {
            initialProcessors = try Self.processors(affinity.initial, "initial")
            finalProcessors = try Self.processors(affinity.final, "final")
        }
    }

    private static func processors(_ text: String, _ field: String) throws(AgentFailure) -> [Int] {
        guard let list = CPUList(text) else {
            throw AgentFailure(
                .invalidArgument, "process.execCPUAffinity.\(field): \"\(text)\" is not a list such as 0-3,7")
        }
        return list.numbers
    }

    private static let ioClasses = ["IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"]
    // linux/sched.h.
    private static let policies: [String: UInt32] = [
        "SCHED_OTHER": 0, "SCHED_FIFO": 1, "SCHED_RR": 2, "SCHED_BATCH": 3, "SCHED_ISO": 4, "SCHED_IDLE": 5,
        "SCHED_DEADLINE": 6,
    ]
    private static let flags: [String: UInt64] = [
        "SCHED_FLAG_RESET_ON_FORK": 0x01, "SCHED_FLAG_RECLAIM": 0x02, "SCHED_FLAG_DL_OVERRUN": 0x04,
        "SCHED_FLAG_KEEP_POLICY": 0x08, "SCHED_FLAG_KEEP_PARAMS": 0x10, "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
        "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
    ]

    private static func attributes(_ scheduler: Scheduler) throws(AgentFailure) -> Attributes {
        guard let policy = policies[scheduler.policy] else {
            throw AgentFailure(
                .invalidArgument, "process.scheduler.policy: \"\(scheduler.policy)\" is not a policy of Linux")
        }
        var flags: UInt64 = 0
        for name in scheduler.flags {
            guard let flag = Self.flags[name] else {
                throw AgentFailure(.invalidArgument, "process.scheduler.flags: \"\(name)\" is not a flag of Linux")
            }
            flags |= flag
        }
        guard let priority = UInt32(exactly: scheduler.priority ?? 0) else {
            throw AgentFailure(
                .invalidArgument, "process.scheduler.priority: \(scheduler.priority ?? 0) is less than 0")
        }
        return Attributes(
            policy: policy, flags: flags, nice: scheduler.nice ?? 0, priority: priority,
            runtime: scheduler.runtime ?? 0, deadline: scheduler.deadline ?? 0, period: scheduler.period ?? 0)
    }
}
