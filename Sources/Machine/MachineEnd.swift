/// Why a machine stopped.
public enum MachineEnd: Sendable, Equatable, CustomStringConvertible {
    /// The guest turned it off.
    case poweredOff
    /// The guest asked for a restart.
    case reset
    /// A processor shut down after a triple fault.
    case tripleFault(processor: Int)
    /// KVM left the guest for a reason that has no meaning here.
    case unhandled(String)

    public var description: String {
        switch self {
        case .poweredOff: "the guest powered off"
        case .reset: "the guest reset the machine"
        case .tripleFault(let processor): "processor \(processor) shut down after a triple fault"
        case .unhandled(let reason): reason
        }
    }
}
