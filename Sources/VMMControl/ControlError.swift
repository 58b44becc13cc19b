public import LinuxSystem

/// What went wrong on a control socket.
public enum ControlError: Error, Equatable, Sendable, CustomStringConvertible {
    case system(SystemError)
    /// A packet of so many bytes that is none of this protocol.
    case malformed(bytes: Int)
    /// A packet of another version of the protocol.
    case version(UInt16, sequence: UInt64)
    /// A packet of this protocol that is not a message, and why.
    case refused(sequence: UInt64, String)

    public var description: String {
        switch self {
        case .system(let error): "\(error)"
        case .malformed(let count): "malformed control message of \(count) bytes"
        case .version(let version, _):
            "the peer speaks version \(version) of the control protocol, this program version \(ControlProtocol.version)"
        case .refused(_, let reason): "control \(reason)"
        }
    }
}

/// Why a process did not do as asked.
public enum DeviceError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The guest answered the connection with RST: nobody listens on the port yet.
    case refused
    /// The guest's driver has not started the device yet.
    case notReady
    /// The guest, or the process, did not answer in time.
    case timedOut
    /// The process said why it failed, or answered what can't be understood.
    case failed(String)
    /// The process is gone.
    case closed
    /// The request could not be sent.
    case system(SystemError)

    public var description: String {
        switch self {
        case .refused: "connection refused by the guest"
        case .notReady: "the guest has not started the device"
        case .timedOut: "no answer in time"
        case .failed(let reason): reason
        case .closed: "the device process is gone"
        case .system(let error): "\(error)"
        }
    }
}
