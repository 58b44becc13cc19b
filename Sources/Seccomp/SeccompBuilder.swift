public import CSeccomp
import Glibc
public import LinuxSystem

/// A filter of system calls in the making, by libseccomp (seccomp_init(3)).
public struct SeccompBuilder: ~Copyable {
    private let filter: UnsafeMutableRawPointer

    /// - Parameter action: what calls without a rule lead to: SECCOMP_RET_*, with its data.
    /// - Throws: where there is no memory, or no such action.
    public init(defaultAction action: UInt32) throws(SystemError) {
        guard let filter = martlet_seccomp_new(action) else { throw SystemError("make a filter", errno: .noMemory) }
        self.filter = filter
        // One that can't is still right.
        _ = martlet_seccomp_optimize(filter)
    }

    deinit { martlet_seccomp_free(filter) }

    /// Has the filter hold for an architecture beside this machine's.
    ///
    /// - Parameter name: libseccomp's: `x86_64`, `aarch64`.
    /// - Returns: whether libseccomp knows it.
    public borrowing func add(architecture name: String) throws(SystemError) -> Bool {
        let result = martlet_seccomp_add_architecture(filter, name)
        if result == -EINVAL { return false }
        try Self.check("architectures: add", name, result)
        return true
    }

    /// Adds a rule. One for a call that libseccomp does not know is left out: it can't be made on this machine either.
    ///
    /// - Parameters:
    ///   - call: by libseccomp's name.
    ///   - action: SECCOMP_RET_*; not the default.
    ///   - conditions: all must hold.
    public borrowing func add(
        _ call: String, _ action: UInt32, _ conditions: [martlet_seccomp_condition]
    ) throws(SystemError) {
        var number: Int32 = 0
        guard martlet_seccomp_resolve(call, &number) != 0 else { return }
        try Self.check(
            "syscalls: add a rule for", call,
            martlet_seccomp_add_rule(filter, action, number, UInt32(conditions.count), conditions))
    }

    /// The filter's instructions, each a `struct sock_filter`, as `loadSeccomp` takes them.
    public borrowing func instructions() throws(SystemError) -> [UInt64] {
        let file = try OwnedDescriptor.memory("seccomp", size: 0)
        try Self.check("export the filter", "", martlet_seccomp_export(filter, file.raw))
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
}

/// Has the calling thread, and those that it starts, obey a filter from now on, beside those that it has (seccomp(2)).
///
/// - Parameters:
///   - instructions: of a `SeccompBuilder`.
///   - flags: SECCOMP_FILTER_FLAG_*.
///   - subject: for the error.
public func loadSeccomp(
    _ instructions: [UInt64], flags: UInt32 = 0, _ subject: String = ""
) throws(SystemError) {
    try check("seccomp", subject, martlet_seccomp_load(flags, instructions, UInt16(clamping: instructions.count)))
}
