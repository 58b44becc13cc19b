/// What of an archive is done where it is unpacked.
public struct UnpackPolicy: Sendable, Equatable {
    /// Whether files get the owners that the archive names; otherwise they belong to whoever unpacks it.
    public var keepsOwners: Bool
    /// Whether devices and fifos are made; otherwise they are left out, and named.
    public var makesDevices: Bool
    /// Whether programs keep what gives them rights: the set-user-ID and set-group-ID bits, and capabilities.
    public var keepsPrivileges: Bool
    /// Whether a symbolic link where a directory is expected is followed; otherwise the archive is refused. The process's root directory is
    /// the bound of where links lead.
    public var followsLinks: Bool

    /// For a process inside a container: whatever it does, it does to that container.
    public static func container(keepsOwners: Bool) -> UnpackPolicy {
        UnpackPolicy(keepsOwners: keepsOwners, makesDevices: true, keepsPrivileges: true, followsLinks: true)
    }

    /// For the host, with an archive that a guest has made: nothing is written outside of the destination, no device is made, and no program
    /// gets rights.
    public static func host(keepsOwners: Bool) -> UnpackPolicy {
        UnpackPolicy(keepsOwners: keepsOwners, makesDevices: false, keepsPrivileges: false, followsLinks: false)
    }
}
