import CSeccomp
import Glibc
import GuestSystem
import LinuxSystem

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
            guard let filter = martlet_seccomp_new(plan.defaultAction) else {
                throw SystemError("make a filter", errno: .noMemory)
            }
            defer { martlet_seccomp_free(filter) }
            for name in plan.architectures {
                let result = martlet_seccomp_add_architecture(filter, name)
                if result == -EINVAL {
                    throw AgentFailure(.invalidArgument, "architectures: \(name) is unknown")
                }
                try Self.check("architectures: add", name, result)
            }
            // One that can't is still right.
            _ = martlet_seccomp_optimize(filter)
            for rule in plan.rules where rule.action != plan.defaultAction { try Self.add(rule, to: filter) }
            return try SeccompNewCalls.prefix(plan) + Self.export(filter)
        }
    }

    private static func add(_ rule: SeccompPlan.Rule, to filter: UnsafeMutableRawPointer) throws {
        var number: Int32 = 0
        guard martlet_seccomp_resolve(rule.name, &number) != 0 else { return }
        let conditions = rule.conditions.map {
            martlet_seccomp_condition(
                argument: $0.argument, operation: $0.operation, value: $0.value, second: $0.second)
        }
        try check(
            "syscalls: add a rule for", rule.name,
            martlet_seccomp_add_rule(filter, rule.action, number, UInt32(conditions.count), conditions))
    }

    private static func export(_ filter: UnsafeMutableRawPointer) throws -> [UInt64] {
        let file = try OwnedDescriptor.memory("seccomp", size: 0)
        try check("export the filter", "", martlet_seccomp_export(filter, file.raw))
        let size = try LinuxSystem.check("lseek", "the filter", lseek(file.raw, 0, SEEK_END))
        var instructions = [UInt64](repeating: 0, count: size / 8)
        let count = instructions.withUnsafeMutableBytes { pread(file.raw, $0.baseAddress, $0.count, 0) }
        try LinuxSystem.check("read", "the filter", count)
        guard size % 8 == 0, count == size, instructions.count <= UInt16.max else {
            throw SystemError("read", "the filter", errno: .invalidArgument)
        }
        return instructions
    }

    private static func check(_ operation: String, _ subject: String, _ result: Int32) throws(SystemError) {
        if result < 0 { throw SystemError(operation, subject, errno: .init(rawValue: -result)) }
    }

    /// Lets it decide over the calling thread's system calls from now on.
    public func load() throws(AgentFailure) {
        try GuestSystem.during("load the \(SeccompPlan.name) filter") {
            try LinuxSystem.check(
                "seccomp", "", martlet_seccomp_load(flags, instructions, UInt16(clamping: instructions.count)))
        }
    }
}
