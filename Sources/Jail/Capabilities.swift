import CLinux

/// Linux capabilities (capabilities(7)), one bit each.
public struct Capabilities: OptionSet, Sendable, Codable {
    public let rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }
    private init(_ number: Int32) { rawValue = 1 << UInt64(number) }

    public static let changeOwner = Capabilities(CAP_CHOWN)
    public static let overrideAccess = Capabilities(CAP_DAC_OVERRIDE)
    public static let actAsOwner = Capabilities(CAP_FOWNER)
    public static let keepSetID = Capabilities(CAP_FSETID)
    public static let makeNodes = Capabilities(CAP_MKNOD)
    public static let setUser = Capabilities(CAP_SETUID)
    public static let setGroup = Capabilities(CAP_SETGID)
    public static let setFileCaps = Capabilities(CAP_SETFCAP)

    /// The capabilities that a file server for containers needs.
    public static let fileServer: Capabilities = [
        .changeOwner, .overrideAccess, .actAsOwner, .keepSetID, .makeNodes, .setUser, .setGroup, .setFileCaps,
    ]

    /// Their names, without `CAP_`, in the order of their numbers.
    public var names: [String] {
        let known: [(Capabilities, String)] = [
            (.changeOwner, "CHOWN"), (.overrideAccess, "DAC_OVERRIDE"), (.actAsOwner, "FOWNER"), (.keepSetID, "FSETID"),
            (.setGroup, "SETGID"), (.setUser, "SETUID"), (.makeNodes, "MKNOD"), (.setFileCaps, "SETFCAP"),
        ]
        var rest = self
        var names: [String] = []
        for (capability, name) in known where rest.remove(capability) != nil { names.append(name) }
        return names + (0..<64).filter { rest.rawValue & 1 << UInt64($0) != 0 }.map { "\($0)" }
    }
}
