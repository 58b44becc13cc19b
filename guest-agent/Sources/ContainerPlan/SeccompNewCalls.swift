import CSeccomp

/// What a filter answers for system calls that are newer than it: ENOSYS, with which programs take the older way; by its default
/// action they would fail for good. Calls with a number above all that the filter names are taken for new, as with runc
/// (libcontainer/seccomp/patchbpf).
enum SeccompNewCalls {
    /// linux/audit.h, and libseccomp's names.
    private static let architectures: [(audit: UInt32, name: String)] = [(0xc000_003e, "x86_64"), (0x4000_0003, "x86")]
    private static let noSuchCall: UInt32 = 0x0005_0000 | 38
    /// Numbers from here on are of x32 (__X32_SYSCALL_BIT).
    private static let otherNumbers: UInt32 = 0x4000_0000

    /// Instructions to put before those of the plan's filter.
    static func prefix(_ plan: SeccompPlan) -> [UInt64] {
        let permissive: [UInt32] = [0x7fff_0000, 0x7ffc_0000]
        if permissive.contains(plan.defaultAction) || plan.defaultAction == noSuchCall { return [] }
        var instructions: [UInt64] = []
        for (index, architecture) in architectures.enumerated() {
            guard index == 0 || plan.architectures.contains(architecture.name) else { continue }
            let numbers = plan.rules.compactMap { rule -> UInt32? in
                UInt32(exactly: martlet_seccomp_number(architecture.name, rule.name))
            }
            guard let last = numbers.max() else { continue }
            instructions += [
                instruction(0x20, 4),  // load the architecture
                instruction(0x15, architecture.audit, otherwise: 4),  // jump if equal
                instruction(0x20, 0),  // load the number
                instruction(0x35, otherNumbers, then: 2),  // jump if greater or equal
                instruction(0x25, last, otherwise: 1),  // jump if greater
                instruction(0x06, noSuchCall),  // answer
            ]
        }
        return instructions
    }

    /// A `struct sock_filter` (linux/filter.h).
    private static func instruction(_ code: UInt16, _ value: UInt32, then: UInt8 = 0, otherwise: UInt8 = 0) -> UInt64 {
        UInt64(code) | UInt64(then) << 16 | UInt64(otherwise) << 24 | UInt64(value) << 32
    }
}
