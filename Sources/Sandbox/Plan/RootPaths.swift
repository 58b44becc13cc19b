import LinuxSystem
import OCISpec

/// Paths of mounts that name the root file system by its path on the host, as with runc.
extension [Mount] {
    /// Makes each destination an absolute path in the container.
    ///
    /// - Parameter rootPath: of the root file system, on the host.
    mutating func completeDestinations(rootPath: String) {
        for index in indices {
            let destination = self[index].destination
            self[index].destination =
                Self.below(rootPath, destination) ?? (destination.hasPrefix("/") ? "" : "/") + destination
        }
    }

    /// Where in the container the source of a bind mount lies that other mounts before it have a part in: the host has not what they
    /// make there.
    ///
    /// - Parameters:
    ///   - index: of the mount.
    ///   - source: an absolute path of the host.
    ///   - rootPath: of the root file system, on the host.
    /// - Returns: an absolute path in the container; nil: the host has all of the source.
    func partOfRoot(_ index: Int, _ source: String, rootPath: String) -> String? {
        guard let part = Self.below(rootPath, source) else { return nil }
        let components = RootDirectory.components(part)
        let isMade = self[..<index].contains { earlier in
            let other = RootDirectory.components(earlier.destination)
            return components.starts(with: other) || other.starts(with: components)
        }
        return isMade ? part : nil
    }

    /// What is left of a path below another; nil for one that is not below, by its name.
    private static func below(_ root: String, _ path: String) -> String? {
        let (above, all) = (RootDirectory.components(root), RootDirectory.components(path))
        guard path.hasPrefix("/"), !above.isEmpty, all.count > above.count, all.starts(with: above), !all.contains("..")
        else { return nil }
        return "/" + all.dropFirst(above.count).joined(separator: "/")
    }
}
