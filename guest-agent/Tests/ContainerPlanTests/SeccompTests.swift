import GuestSystem
import OCISpec
import Testing

@testable import ContainerPlan

/// Runs the instructions that libseccomp makes filters of (linux/filter.h).
private func answer(
    _ filter: SeccompFilter, _ number: Int32, _ arguments: [UInt64] = [], architecture: UInt32 = 0xc000_003e
)
    -> UInt32?
{
    // struct seccomp_data, in words.
    var data = [UInt32(bitPattern: number), architecture, 0, 0]
    for index in 0..<6 {
        let value = index < arguments.count ? arguments[index] : 0
        data += [UInt32(truncatingIfNeeded: value), UInt32(truncatingIfNeeded: value >> 32)]
    }
    var (next, accumulator) = (0, UInt32(0))
    while filter.instructions.indices.contains(next) {
        let word = filter.instructions[next]
        let value = UInt32(truncatingIfNeeded: word >> 32)
        func jump(_ holds: Bool) -> Int { Int(word >> (holds ? 16 : 24) & 0xff) }
        next += 1
        switch word & 0xffff {
        case 0x20: accumulator = data[Int(value) / 4]
        case 0x54: accumulator &= value
        case 0x05: next += Int(value)
        case 0x15: next += jump(accumulator == value)
        case 0x25: next += jump(accumulator > value)
        case 0x35: next += jump(accumulator >= value)
        case 0x45: next += jump(accumulator & value != 0)
        case 0x06: return value
        default: return nil
        }
    }
    return nil
}

@Suite struct SeccompTests {
    typealias Seccomp = Linux.Seccomp

    @Test func theFilterAnswersAsTheRulesSay() throws {
        var seccomp = Seccomp(defaultAction: "SCMP_ACT_ERRNO")
        seccomp.architectures = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
        let masked = Seccomp.Argument(index: 0, value: 0x7e02_0000, op: "SCMP_CMP_MASKED_EQ")
        let least = Seccomp.Argument(index: 1, value: 1 << 40, op: "SCMP_CMP_GE")
        seccomp.syscalls = [
            rule(["read", "statx"], "SCMP_ACT_ALLOW"), rule(["clone"], "SCMP_ACT_ALLOW", [masked]),
            rule(["lseek"], "SCMP_ACT_KILL_PROCESS", [least]), rule(["mkdir"], "SCMP_ACT_ERRNO", errno: 5),
        ]
        let filter = try SeccompFilter(SeccompPlan(seccomp))
        let (allow, denied): (UInt32, UInt32) = (0x7fff_0000, 0x0005_0001)
        #expect(answer(filter, 0) == allow)
        #expect(answer(filter, 1) == denied)
        #expect(answer(filter, 56, [0x11]) == allow && answer(filter, 56, [0x1000_0011]) == denied)
        #expect(answer(filter, 8, [0, 1 << 40]) == 0x8000_0000 && answer(filter, 8, [0, 1]) == denied)
        #expect(answer(filter, 83) == 0x0005_0005)
        // Above statx (332; 383 on x86) is what the filter does not know of.
        #expect(answer(filter, 331) == denied && answer(filter, 333) == 0x0005_0026)
        #expect(answer(filter, 3, architecture: 0x4000_0003) == allow)
        #expect(answer(filter, 384, architecture: 0x4000_0003) == 0x0005_0026)
        #expect(answer(filter, 0x4000_014c) == allow && answer(filter, 0x4000_014d) == denied)
        // One for which there is no rule.
        #expect(answer(filter, 0, architecture: 0xc000_00b7) == 0)
    }

    private func rule(
        _ names: [String], _ action: String, errno: UInt? = nil, _ arguments: [Seccomp.Argument] = []
    ) -> Seccomp.Rule {
        var rule = Seccomp.Rule(names: names, action: action)
        (rule.errnoRet, rule.args) = (errno, arguments)
        return rule
    }

    @Test(
        arguments: [
            ("SCMP_ACT_KILL", 0, 0), ("SCMP_ACT_KILL_THREAD", 0, 0), ("SCMP_ACT_KILL_PROCESS", 0x8000_0000, 0),
            ("SCMP_ACT_TRAP", 0x0003_0000, 0), ("SCMP_ACT_ERRNO", 0x0005_0001, 0), ("SCMP_ACT_ERRNO", 0x0005_0026, 38),
            ("SCMP_ACT_TRACE", 0x7ff0_0007, 7), ("SCMP_ACT_LOG", 0x7ffc_0000, 0), ("SCMP_ACT_ALLOW", 0x7fff_0000, 0),
        ] as [(String, UInt32, UInt)])
    func actionsBecomeNumbers(name: String, number: UInt32, errno: UInt) throws {
        var seccomp = Seccomp(defaultAction: name)
        if errno != 0 { seccomp.defaultErrnoRet = errno }
        #expect(try SeccompPlan(seccomp).defaultAction == number)
    }

    @Test func conditionsOnOneArgumentStandAlone() throws {
        var seccomp = Seccomp(defaultAction: "SCMP_ACT_ALLOW")
        let first = Seccomp.Argument(index: 0, value: 1, op: "SCMP_CMP_EQ")
        let again = Seccomp.Argument(index: 0, value: 2, op: "SCMP_CMP_GT")
        let other = Seccomp.Argument(index: 1, value: 3, op: "SCMP_CMP_MASKED_EQ")
        seccomp.syscalls = [
            rule(["a", "b"], "SCMP_ACT_ERRNO", [first, other]), rule(["c"], "SCMP_ACT_ERRNO", [first, again]),
        ]
        seccomp.architectures = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"]
        seccomp.flags = ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"]
        let plan = try SeccompPlan(seccomp)
        #expect(plan.rules.map(\.name) == ["a", "b", "c", "c"])
        #expect(plan.rules.map { $0.conditions.count } == [2, 2, 1, 1])
        #expect(plan.rules[0].conditions[1].operation == 6)
        #expect(plan.architectures == ["x86_64", "x32"])
        #expect(plan.flags == 6)
    }

    @Test func theFilterIsMade() throws {
        var seccomp = Seccomp(defaultAction: "SCMP_ACT_ALLOW")
        seccomp.architectures = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64"]
        let empty = try SeccompFilter(SeccompPlan(seccomp)).instructions.count
        seccomp.syscalls = [rule(["no_such_call", "mkdir", "chmod"], "SCMP_ACT_ERRNO", errno: 5)]
        #expect(try SeccompFilter(SeccompPlan(seccomp)).instructions.count > empty)
        // The default action again, and what is not known: nothing to add.
        seccomp.syscalls = [rule(["mkdir"], "SCMP_ACT_ALLOW"), rule(["no_such_call"], "SCMP_ACT_LOG")]
        #expect(try SeccompFilter(SeccompPlan(seccomp)).instructions.count == empty)
    }

    @Test func everyComparisonIsTaken() throws {
        var seccomp = Seccomp(defaultAction: "SCMP_ACT_ALLOW")
        for (index, name) in SeccompPlan.operators.enumerated() {
            let argument = Seccomp.Argument(index: UInt(index % 6), value: 1, op: name)
            seccomp.syscalls.append(rule(["mkdir"], "SCMP_ACT_ERRNO", errno: UInt(index + 1), [argument]))
        }
        #expect(try !SeccompFilter(SeccompPlan(seccomp)).instructions.isEmpty)
    }

    @Test func whatCannotBeIsNamed() {
        func message(_ change: (inout Seccomp) -> Void) -> String? {
            var seccomp = Seccomp(defaultAction: "SCMP_ACT_ALLOW")
            change(&seccomp)
            do throws(AgentFailure) { _ = try SeccompFilter(SeccompPlan(seccomp)) } catch { return error.message }
            return nil
        }
        #expect(message { $0.defaultAction = "ALLOW" } == "linux.seccomp.defaultAction: \"ALLOW\" is not an action")
        #expect(message { $0.architectures = ["SCMP_ARCH_Z80"] } == "linux.seccomp: architectures: z80 is unknown")
        #expect(message { $0.flags = ["X"] } == "linux.seccomp.flags: \"X\" is not a flag of a filter")
        #expect(
            message { $0.syscalls = [rule(["mkdir"], "SCMP_ACT_NOTIFY")] }?
                .hasPrefix("linux.seccomp.syscalls[0].action: ") == true)
        let argument = Seccomp.Argument(index: 6, value: 0, op: "SCMP_CMP_EQ")
        #expect(
            message { $0.syscalls = [rule(["mkdir"], "SCMP_ACT_LOG", [argument])] }
                == "linux.seccomp.syscalls[0].args[0].index: a system call has no argument 6")
        let unknown = Seccomp.Argument(index: 0, value: 0, op: "EQ")
        #expect(
            message { $0.syscalls = [rule(["mkdir"], "SCMP_ACT_LOG", [unknown])] }
                == "linux.seccomp.syscalls[0].args[0].op: \"EQ\" is not a comparison")
    }
}
