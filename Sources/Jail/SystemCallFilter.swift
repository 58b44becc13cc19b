import CLinux
import CSeccomp
import Glibc
import LinuxSystem

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
            try LinuxSystem.check(
                "seccomp", thread,
                instructions.withUnsafeBufferPointer { martlet_seccomp_load(0, $0.baseAddress, UInt16($0.count)) })
        }
    }

    /// SECCOMP_RET_* (linux/seccomp.h).
    private static let (trap, fail, allow): (UInt32, UInt32, UInt32) = (0x0003_0000, 0x0005_0000, 0x7fff_0000)

    func compile() throws(SystemError) -> Program {
        guard let filter = martlet_seccomp_new(isDenyList ? Self.allow : Self.trap) else {
            throw SystemError("seccomp_init", thread, errno: .noMemory)
        }
        defer { martlet_seccomp_free(filter) }
        try Self.check(martlet_seccomp_optimize(filter), "seccomp_attr_set", thread)
        for call in calls {
            var number: Int32 = 0
            // One that this libseccomp does not know can't be made on this machine either.
            guard martlet_seccomp_resolve(call.name, &number) != 0 else { continue }
            let conditions = call.conditions.map {
                martlet_seccomp_condition(argument: $0.argument, operation: 6, value: $0.mask, second: $0.value)
            }
            let action = call.errno.map { Self.fail | UInt32($0) } ?? Self.allow
            try Self.check(
                martlet_seccomp_add_rule(filter, action, number, UInt32(conditions.count), conditions),
                "seccomp_rule_add",
                call.name)
        }
        let file = try OwnedDescriptor.memory("seccomp", size: 0)
        try Self.check(martlet_seccomp_export(filter, file.raw), "seccomp_export_bpf", thread)
        var facts = stat()
        try LinuxSystem.check("fstat", "seccomp", fstat(file.raw, &facts))
        var program = [UInt64](repeating: 0, count: Int(facts.st_size) / 8)
        let read = program.withUnsafeMutableBytes { pread(file.raw, $0.baseAddress, $0.count, 0) }
        try LinuxSystem.check("pread", "seccomp", read)
        return Program(thread: thread, names: names, instructions: program)
    }

    private static func check(_ result: Int32, _ call: String, _ subject: String) throws(SystemError) {
        if result < 0 { throw SystemError(call, subject, errno: .init(rawValue: -result)) }
    }
}
