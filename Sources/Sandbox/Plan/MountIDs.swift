import LinuxSystem
import OCISpec

extension Spec {
    /// Takes the mapped ids out of a bind mount: the host maps them, and the guest's mount has none of its own.
    ///
    /// `idmap` and `ridmap` without maps mean those of the container's user namespace.
    ///
    /// - Parameter index: in `mounts`.
    /// - Returns: nil for a mount with the ids that the files have.
    /// - Throws: `SandboxError.invalid` for maps that nobody has named.
    mutating func takeIDs(ofMount index: Int) throws -> SandboxPlan.ShareIDs? {
        let option = mounts[index].options.last { ["idmap", "ridmap"].contains($0) }
        mounts[index].options.removeAll { ["idmap", "ridmap"].contains($0) }
        var (users, groups) = (mounts[index].uidMappings, mounts[index].gidMappings)
        (mounts[index].uidMappings, mounts[index].gidMappings) = ([], [])
        if users.isEmpty {
            guard let option else { return nil }
            (users, groups) = (linux?.uidMappings ?? [], linux?.gidMappings ?? [])
            guard !users.isEmpty, !groups.isEmpty else {
                throw SandboxError.invalid(
                    "mounts[\(index)].options (\(mounts[index].destination)): \(option) without uidMappings and gidMappings, "
                        + "and without a user namespace of the container's own")
            }
        }
        let map = MappedIDs(users: users.map(\.range), groups: groups.map(\.range))
        return SandboxPlan.ShareIDs(map: map, mounts: option == "ridmap" ? .all : .top)
    }
}

extension Linux.IDMapping {
    fileprivate var range: MappedIDs.Range { .init(first: containerID, becomes: hostID, count: size) }
}
