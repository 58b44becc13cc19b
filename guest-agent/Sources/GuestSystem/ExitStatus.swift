/// How a process ended, as wait(2) reports it.
public enum ExitStatus: Sendable, Equatable {
    case exited(UInt8)
    case signalled(UInt8)

    /// From the status word of waitpid(2); nil when it reports a stop or a continuation.
    public init?(waitStatus: Int32) {
        let signal = UInt8(truncatingIfNeeded: waitStatus & 0x7f)
        switch signal {
        case 0: self = .exited(UInt8(truncatingIfNeeded: waitStatus >> 8))
        case 0x7f: return nil
        default: self = .signalled(signal)
        }
    }

    /// The signal that ended the process; 0: it exited.
    public var signal: UInt32 { if case .signalled(let signal) = self { UInt32(signal) } else { 0 } }

    /// As a shell has it: 0–255, and 128 + n for signal n.
    public var code: UInt32 {
        switch self {
        case .exited(let code): UInt32(code)
        case .signalled(let signal): 128 + UInt32(signal)
        }
    }
}
