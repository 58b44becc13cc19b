/// A machine that was saved: a directory with its state, its memory and its file server's state.
public struct MachineTemplate: Sendable, Equatable, Codable {
    /// Absolute path.
    public var directory: String

    public init(directory: String) { self.directory = directory }

    /// As `martlet template list` has it.
    public var name: String { String(directory[(directory.lastIndex(of: "/") ?? directory.startIndex)...].dropFirst()) }

    /// The state of vCPUs and devices, as `martlet-vmm` writes it.
    public var state: String { "\(directory)/state" }
    /// What the file server has told the guest; of a machine that had shares.
    public var files: String { "\(directory)/files" }
    /// The guest's memory from address 0 on without the gap, of the memory's size. Pages of zeros are holes.
    public var memory: String { "\(directory)/memory" }
}
