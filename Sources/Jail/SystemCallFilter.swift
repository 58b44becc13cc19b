import CSeccomp
import LinuxSystem
import Seccomp

/// The system calls that a kind of thread may make (seccomp(2)). Any other ends the process, with a line on its standard error.
public struct SystemCallFilter: Sendable, Equatable, Codable {
    /// A condition on an argument (seccomp_rule_add(3)).
    public struct Condition: Sendable, Equatable, Codable {
        /// 0–5.
        var argument: UInt32
        /// The bits of the argument that are looked at.
        var mask: UInt64
        var value: UInt64
    }

    /// A call by its name in libseccomp.
    public struct Call: Sendable, Equatable, Codable {
        public var name: String
        /// All must hold. nil: whatever the arguments are.
        var conditions: [Condition] = []
        /// The call fails with this errno, and is not made.
        var errno: Int32?
    }

    /// The kind of thread.
    public var thread: String
    /// What the names of such threads begin with, where they have a filter of their own beside that of the process.
    public var names: [String] = []
    public var calls: [Call]
    /// Whether all calls are allowed but those that fail by `calls`.
    public var isDenyList = false

    /// How many different calls it allows.
    public var count: Int { Set(calls.filter { $0.errno == nil }.map(\.name)).count }

    /// The exit code of a process that a filter has ended: that of SIGSYS in a shell.
    public static let exitCode: Int32 = 128 + 31

    /// A filter as the kernel takes it.
    struct Program: Sendable {
        let thread: String
        let names: [String]
        /// struct sock_filter.
        let instructions: [UInt64]

        /// Has this thread, and those that it starts, obey the filter, beside those that it has.
        func load() throws(SystemError) {
            try loadSeccomp(instructions, thread)
        }
    }

    /// SECCOMP_RET_* (linux/seccomp.h).
    private static let (trap, fail, allow): (UInt32, UInt32, UInt32) = (0x0003_0000, 0x0005_0000, 0x7fff_0000)

    func compile() throws(SystemError) -> Program {
        let filter = try SeccompBuilder(defaultAction: isDenyList ? Self.allow : Self.trap)
        for call in calls {
            let conditions = call.conditions.map {
                martlet_seccomp_condition(
                    argument: $0.argument, operation: Self.maskedEqual, value: $0.mask, second: $0.value)
            }
            try filter.add(call.name, call.errno.map { Self.fail | UInt32($0) } ?? Self.allow, conditions)
        }
        return Program(thread: thread, names: names, instructions: try filter.instructions())
    }

    /// SCMP_CMP_MASKED_EQ, in the order of `martlet_seccomp_condition`.
    private static let maskedEqual: Int32 = 6
}
