/// Device rules as a program that the kernel runs for each use of a device in a cgroup: 1 allows it, 0 denies it.
///
/// Sources: Documentation/bpf/standardization/instruction-set.rst; linux/bpf.h, `struct bpf_cgroup_dev_ctx`.
public struct DeviceProgram: Sendable, Equatable {
    /// Each is a `struct bpf_insn`, little-endian.
    public private(set) var instructions: [UInt64] = []

    // Registers: what is asked for, and of it what no rule has allowed yet.
    private static let result: UInt8 = 0
    private static let context: UInt8 = 1
    private static let type: UInt8 = 2
    private static let access: UInt8 = 3
    private static let major: UInt8 = 4
    private static let minor: UInt8 = 5

    private enum Code {
        static let load: UInt8 = 0x61  // LDX | MEM | W
        static let and: UInt8 = 0x54  // ALU | AND | K
        static let shiftRight: UInt8 = 0x74  // ALU | RSH | K
        static let set: UInt8 = 0xb7  // ALU64 | MOV | K
        static let jumpUnequal: UInt8 = 0x55  // JMP | JNE | K
        static let jumpAny: UInt8 = 0x45  // JMP | JSET | K
        static let jump: UInt8 = 0x05  // JMP | JA
        static let exit: UInt8 = 0x95  // JMP | EXIT
    }

    /// The rules are tried from the last to the first, so the first that fits decides.
    public init(_ rules: DeviceRules) {
        add(Code.load, Self.type, source: Self.context, offset: 0)
        add(Code.and, Self.type, 0xffff)
        add(Code.load, Self.access, source: Self.context, offset: 0)
        add(Code.shiftRight, Self.access, 16)
        add(Code.load, Self.major, source: Self.context, offset: 4)
        add(Code.load, Self.minor, source: Self.context, offset: 8)
        for rule in rules.rules.reversed() {
            add(rule)
            // The kernel refuses a program with instructions that nothing leads to.
            if rule.decidesAll { return }
        }
        answer(0)
    }

    private mutating func add(_ rule: DeviceRules.Rule) {
        let conditions = [(Self.type, rule.type), (Self.major, rule.major), (Self.minor, rule.minor)]
            .compactMap { register, value in value.map { (register, $0) } }
        let whole = rule.access == DeviceRules.allAccess
        let body: Int16 = whole ? 2 : 4
        for (index, (register, value)) in conditions.enumerated() {
            let rest = Int16(conditions.count - index - 1)
            add(Code.jumpUnequal, register, Int32(bitPattern: value), offset: rest + body)
        }
        if !whole, rule.allow {
            add(Code.and, Self.access, Int32(bitPattern: DeviceRules.allAccess & ~rule.access))
            add(Code.jumpUnequal, Self.access, 0, offset: 2)
        } else if !whole {
            add(Code.jumpAny, Self.access, Int32(bitPattern: rule.access), offset: 1)
            add(Code.jump, 0, offset: 2)
        }
        answer(rule.allow ? 1 : 0)
    }

    private mutating func answer(_ value: Int32) {
        add(Code.set, Self.result, value)
        add(Code.exit, 0)
    }

    private mutating func add(
        _ code: UInt8, _ destination: UInt8, _ immediate: Int32 = 0, source: UInt8 = 0, offset: Int16 = 0
    ) {
        instructions.append(
            UInt64(code) | UInt64(source << 4 | destination) << 8 | UInt64(UInt16(bitPattern: offset)) << 16
                | UInt64(UInt32(bitPattern: immediate)) << 32)
    }
}

extension DeviceRules.Rule {
    /// Whether it fits each use of each device.
    fileprivate var decidesAll: Bool {
        type == nil && major == nil && minor == nil && access == DeviceRules.allAccess
    }
}
