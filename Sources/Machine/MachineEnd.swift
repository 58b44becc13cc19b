/// Why a machine ended by itself.
public enum MachineEnd: Sendable, Equatable, CustomStringConvertible {
    /// The guest turned it off.
    case poweredOff
    /// The guest asked for a restart.
    case reset
    /// A vCPU shut down after a triple fault.
    case tripleFault(vcpu: Int, VCPURegisters?)
    /// No vCPU can go on: this one is halted with interrupts disabled, and the others were never started, or are halted too.
    case halted(vcpu: Int, VCPURegisters?)
    /// The guest wrote to its root image, which it can only read.
    case rootImageWritten(address: UInt64)
    /// KVM left the guest for a reason that this program does not handle.
    case unhandled(String)

    public var description: String {
        switch self {
        case .poweredOff: "the guest powered off"
        case .reset: "the guest reset the machine"
        case .tripleFault(let vcpu, let registers):
            "vCPU \(vcpu) shut down after a triple fault" + (registers.map { ": \($0)" } ?? "")
        case .halted(let vcpu, let registers):
            "vCPU \(vcpu) halted for good" + (registers.map { ": \($0)" } ?? "")
        case .rootImageWritten(let address):
            "the guest wrote to its read-only root image at \(hexadecimal(address))"
        case .unhandled(let reason): reason
        }
    }

    /// What a vCPU's end means for the machine; nil where the host asked for it.
    init?(_ end: VCPUEnd, vcpu: Int) {
        switch end {
        case .stopped: return nil
        case .halted(let registers): self = .halted(vcpu: vcpu, registers)
        case .tripleFault(let registers): self = .tripleFault(vcpu: vcpu, registers)
        case .systemEvent(let type): self = .unhandled("KVM system event \(type)")
        case .unhandled(let reason): self = .unhandled("vCPU \(vcpu): \(reason)")
        }
    }
}
