/// What a sandbox can refuse or fail with; the Task service turns each into a gRPC code at one place.
public enum SandboxError: Error, CustomStringConvertible, Sendable {
    case alreadyExists(String)
    case notFound(String)
    /// The request does not fit the state: what, and the state it is in.
    case wrongState(String)
    /// Bad input: the field or file, and what is wrong with it.
    case invalid(String)
    /// Not built, or not possible here: the feature's name.
    case unsupported(String)
    /// Something failed while doing this.
    case failed(String)
    /// The VM ended under it; `console` is the last that the guest printed.
    case machineEnded(reason: String, console: [String])

    public var description: String {
        switch self {
        case .alreadyExists(let id): "container \(id) already exists"
        case .notFound(let what): "\(what) does not exist"
        case .wrongState(let what): what
        case .invalid(let what): what
        case .unsupported(let what): "\(what) is not supported"
        case .failed(let what): what
        case .machineEnded(let reason, let console):
            "the virtual machine ended: \(reason)"
                + (console.isEmpty ? "" : "\nlast console lines:\n  " + console.joined(separator: "\n  "))
        }
    }
}
