import GuestSystem
import OCISpec
import Testing

@testable import ContainerPlan

@Suite struct SeccompTests {
    typealias Seccomp = Linux.Seccomp

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
