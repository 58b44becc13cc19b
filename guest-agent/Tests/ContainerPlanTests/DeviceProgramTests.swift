import GuestSystem
import OCISpec
import Testing

@testable import ContainerPlan

/// Runs the instructions that device programs are made of.
private struct Machine {
    var registers = [UInt64](repeating: 0, count: 11)

    mutating func run(_ program: [UInt64], _ context: [UInt32]) -> UInt64? {
        var next = 0
        while program.indices.contains(next) {
            let word = program[next]
            let (target, source) = (Int(word >> 8 & 15), Int(word >> 12 & 15))
            let offset = Int(Int16(truncatingIfNeeded: word >> 16))
            let immediate = UInt64(bitPattern: Int64(Int32(truncatingIfNeeded: word >> 32)))
            next += 1
            switch word & 0xff {
            case 0x61: registers[target] = source == 1 ? UInt64(context[offset / 4]) : 0
            case 0x54: registers[target] = (registers[target] & immediate) & 0xffff_ffff
            case 0x74: registers[target] = (registers[target] & 0xffff_ffff) >> immediate
            case 0xb7: registers[target] = immediate
            case 0x55: if registers[target] != immediate { next += offset }
            case 0x45: if registers[target] & immediate != 0 { next += offset }
            case 0x05: next += offset
            case 0x95: return registers[0]
            default: return nil
            }
        }
        return nil
    }
}

@Suite struct DeviceProgramTests {
    private func program(_ rules: [Linux.Resources.DeviceRule]) throws -> DeviceProgram {
        DeviceProgram(try DeviceRules(rules))
    }

    private func rule(
        _ allow: Bool, _ type: String = "", _ major: Int64? = nil, _ minor: Int64? = nil, _ access: String = "rwm"
    ) -> Linux.Resources.DeviceRule {
        var rule = Linux.Resources.DeviceRule(allow: allow, access: access)
        (rule.type, rule.major, rule.minor) = (type, major, minor)
        return rule
    }

    /// Whether the program allows it: `c`, 10, 229, `rw`.
    private func allows(
        _ program: DeviceProgram, _ type: String, _ major: UInt32, _ minor: UInt32, _ access: String
    ) -> Bool {
        let bits = access.reduce(UInt32(0)) { $0 | ($1 == "m" ? 1 : $1 == "r" ? 2 : 4) }
        var machine = Machine()
        let result = machine.run(program.instructions, [bits << 16 | (type == "b" ? 1 : 2), major, minor])
        #expect(result == 0 || result == 1)
        return result == 1
    }

    @Test func withoutRulesOnlyTheUsualOnesAreAllowed() throws {
        let program = try program([rule(false)])
        for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, 77)] {
            #expect(allows(program, "c", UInt32(major), UInt32(minor), "rw"))
        }
        #expect(!allows(program, "c", 1, 1, "r"))
        #expect(!allows(program, "c", 10, 229, "rw"))
        #expect(!allows(program, "b", 1, 3, "r"))
        #expect(allows(program, "b", 8, 0, "m"))
        #expect(!allows(program, "b", 8, 0, "rm"))
    }

    @Test func theLastRuleThatFitsDecides() throws {
        let program = try program([
            rule(false), rule(true, "c", 10, nil), rule(false, "c", 10, 200), rule(true, "b", 8, nil, "r"),
            rule(true, "b", 8, 1, "w"),
        ])
        #expect(allows(program, "c", 10, 229, "rw"))
        #expect(!allows(program, "c", 10, 200, "r"))
        #expect(allows(program, "b", 8, 0, "r"))
        #expect(!allows(program, "b", 8, 0, "rw"))
        // Each kind of access by a rule of its own.
        #expect(allows(program, "b", 8, 1, "rw"))
    }

    @Test func aRuleForEverythingEndsTheProgram() throws {
        let program = try program([rule(false, "c", 10, 1), rule(true, "a")])
        #expect(allows(program, "c", 10, 1, "rwm"))
        #expect(allows(program, "b", 259, 3, "rwm"))
        // Nothing after it: what is given before can't be reached.
        let bare = try self.program([]).instructions.count
        #expect(program.instructions.count == bare)
    }

    @Test func partOfAnAccessIsTakenAway() throws {
        let program = try program([rule(true), rule(false, "c", 4, nil, "w")])
        #expect(allows(program, "c", 4, 1, "r"))
        #expect(!allows(program, "c", 4, 1, "rw"))
        #expect(allows(program, "c", 3, 1, "rw"))
    }

    @Test func wrongRulesAreNamed() {
        for (bad, field) in [
            (rule(true, "x"), "type"), (rule(true, "c", 1, 1, "x"), "access"), (rule(true, "c", -2), "major"),
        ] {
            let error = #expect(throws: AgentFailure.self) { try DeviceRules([bad]) }
            #expect(error?.message.hasPrefix("linux.resources.devices[0].\(field): ") == true)
        }
    }
}
