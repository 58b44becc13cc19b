public import LinuxSystem

/// Why a virtual machine could not be made, or refused a request.
public struct MachineError: StateFailure, Sendable, Equatable, CustomStringConvertible {
    public var description: String
    public init(_ description: String) { self.description = description }
}
