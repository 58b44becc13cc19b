import CLinux

/// The registers of a vCPU that say how its guest came to its end.
public struct VCPURegisters: Sendable, Equatable, CustomStringConvertible {
    /// An exception that was being delivered, or is to be delivered next.
    struct Exception: Sendable, Equatable {
        var vector: UInt8
        var errorCode: UInt32?
    }

    /// RFLAGS.IF: maskable interrupts are taken.
    static let interruptFlag: UInt64 = 1 << 9

    var rip: UInt64 = 0
    var rsp: UInt64 = 0
    var rflags: UInt64 = 0
    var cr0: UInt64 = 0
    var cr2: UInt64 = 0
    var cr3: UInt64 = 0
    var cr4: UInt64 = 0
    var exception: Exception?
    /// The registers have the values of a reset.
    var areReset = false

    init(_ general: kvm_regs, _ special: kvm_sregs, _ events: kvm_vcpu_events) {
        (rip, rsp, rflags) = (general.rip, general.rsp, general.rflags)
        (cr0, cr2, cr3, cr4) = (special.cr0, special.cr2, special.cr3, special.cr4)
        if events.exception.injected != 0 || events.exception.pending != 0 {
            exception = Exception(
                vector: events.exception.nr,
                errorCode: events.exception.has_error_code != 0 ? events.exception.error_code : nil)
        }
        areReset = rip == 0xfff0 && special.cs.selector == 0xf000
    }

    public var description: String {
        // AMD's processors leave the registers undefined when they shut down, so KVM resets the vCPU before it exits.
        if areReset { return "its registers were reset" }
        let values: [(String, UInt64)] = [
            ("rip", rip), ("rsp", rsp), ("rflags", rflags), ("cr0", cr0), ("cr2", cr2), ("cr3", cr3), ("cr4", cr4),
        ]
        var parts = values.map { "\($0) \(hexadecimal($1))" }
        if let exception { parts.insert("\(exception)", at: 1) }
        return parts.joined(separator: ", ")
    }
}

extension VCPURegisters.Exception: CustomStringConvertible {
    /// Intel SDM volume 3, table 6-1.
    private static let names: [UInt8: String] = [
        0: "divide error", 1: "debug", 3: "breakpoint", 4: "overflow", 5: "bound", 6: "invalid opcode",
        7: "no coprocessor", 8: "double fault", 10: "invalid TSS", 11: "segment not present", 12: "stack fault",
        13: "general protection", 14: "page fault", 16: "floating point", 17: "alignment check", 18: "machine check",
        19: "SIMD floating point",
    ]

    var description: String {
        "exception \(vector)" + (Self.names[vector].map { " (\($0))" } ?? "")
            + (errorCode.map { " error \(hexadecimal(UInt64($0)))" } ?? "")
    }
}
