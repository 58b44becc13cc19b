import GuestSystem
public import OCISpec

/// A system call filter of a specification, checked, as numbers: what libseccomp is asked for.
///
/// Sources: runtime-spec config-linux.md, "Seccomp"; runc's libcontainer/seccomp, for what it leaves open.
public struct SeccompPlan: Sendable, Equatable {
    /// A condition on an argument.
    public struct Condition: Sendable, Equatable {
        public var argument: UInt32
        /// Index in `operators`.
        public var operation: Int32
        public var value: UInt64
        public var second: UInt64
    }

    public struct Rule: Sendable, Equatable {
        public var name: String
        /// SECCOMP_RET_*, with its data.
        public var action: UInt32
        /// All must be met.
        public var conditions: [Condition]
    }

    public var defaultAction: UInt32
    /// libseccomp's names: `x86_64`.
    public var architectures: [String]
    /// SECCOMP_FILTER_FLAG_*.
    public var flags: UInt32 = 0
    public var rules: [Rule] = []

    static let name = "linux.seccomp"
    /// In the order in which the C shim counts them.
    static let operators = [
        "SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ",
    ]

    /// Throws what can't be, by name.
    public init(_ seccomp: Linux.Seccomp) throws(AgentFailure) {
        if let refused = seccomp.unsupported().first(where: { $0.verdict == .refuse }) {
            throw AgentFailure(.unimplemented, refused.description)
        }
        defaultAction = try Self.action(
            seccomp.defaultAction, errno: seccomp.defaultErrnoRet, "\(Self.name).defaultAction")
        architectures = try Self.architectures(seccomp.architectures)
        for flag in seccomp.flags {
            switch flag {
            // The filter is loaded by the one thread of a process, and no listener waits for it.
            case "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": continue
            case "SECCOMP_FILTER_FLAG_LOG": flags |= 2
            case "SECCOMP_FILTER_FLAG_SPEC_ALLOW": flags |= 4
            default: throw AgentFailure(.invalidArgument, "\(Self.name).flags: \"\(flag)\" is not a flag of a filter")
            }
        }
        for (index, rule) in seccomp.syscalls.enumerated() {
            let field = "\(Self.name).syscalls[\(index)]"
            let action = try Self.action(rule.action, errno: rule.errnoRet, "\(field).action")
            let alternatives = try Self.alternatives(rule.args, field)
            for name in rule.names {
                rules += alternatives.map { Rule(name: name, action: action, conditions: $0) }
            }
        }
    }

    private static func architectures(_ names: [String]) throws(AgentFailure) -> [String] {
        var list: [String] = []
        for name in names {
            guard name.hasPrefix("SCMP_ARCH_") else {
                throw AgentFailure(.invalidArgument, "\(Self.name).architectures: \"\(name)\" is not SCMP_ARCH_…")
            }
            list.append(name.dropFirst(10).lowercased())
        }
        return list
    }

    /// linux/seccomp.h. Without a number an error is EPERM.
    private static func action(_ name: String, errno: UInt?, _ field: String) throws(AgentFailure) -> UInt32 {
        let number = errno ?? 1
        guard number <= 0xffff else { throw AgentFailure(.invalidArgument, "\(field): error \(number) is too large") }
        switch name {
        case "SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD": return 0
        case "SCMP_ACT_KILL_PROCESS": return 0x8000_0000
        case "SCMP_ACT_TRAP": return 0x0003_0000
        case "SCMP_ACT_ERRNO": return 0x0005_0000 | UInt32(number)
        case "SCMP_ACT_TRACE": return 0x7ff0_0000 | UInt32(number)
        case "SCMP_ACT_LOG": return 0x7ffc_0000
        case "SCMP_ACT_ALLOW": return 0x7fff_0000
        default: throw AgentFailure(.invalidArgument, "\(field): \"\(name)\" is not an action")
        }
    }

    /// Lists of conditions, of which one must be met. Conditions on different arguments are met together; where two are on the same
    /// argument, which a filter can't have, each stands alone, as with runc.
    private static func alternatives(
        _ arguments: [Linux.Seccomp.Argument], _ field: String
    ) throws(AgentFailure) -> [[Condition]] {
        var conditions: [Condition] = []
        for (index, argument) in arguments.enumerated() {
            let field = "\(field).args[\(index)]"
            guard argument.index < 6 else {
                throw AgentFailure(.invalidArgument, "\(field).index: a system call has no argument \(argument.index)")
            }
            guard let operation = operators.firstIndex(of: argument.op) else {
                throw AgentFailure(.invalidArgument, "\(field).op: \"\(argument.op)\" is not a comparison")
            }
            conditions.append(
                Condition(
                    argument: UInt32(argument.index), operation: Int32(operation), value: argument.value,
                    second: argument.valueTwo ?? 0))
        }
        let isApart = Set(conditions.map(\.argument)).count == conditions.count
        return isApart ? [conditions] : conditions.map { [$0] }
    }
}
